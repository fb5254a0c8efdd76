/**
 * Memory for the pieces of an answer. Where who sends a piece is done with it when it asks for more, a few are used again
 * and again: finding fresh memory costs as much as reading a file into it.
 *
 * @module
 */

/** Memory for the next piece. */
export type NewPiece = (bytes: number) => Uint8Array<ArrayBuffer>;

/** Each piece its own. */
export const freshPiece: NewPiece = (bytes) => new Uint8Array(bytes);

/** Pieces that stay as they are until the fourth one after them is asked for. */
export function pieceRing(): NewPiece {
  const ring: Uint8Array<ArrayBuffer>[] = [];
  let turn = 0;
  return (bytes) => {
    const slot = turn++ % 4;
    if ((ring[slot]?.length ?? -1) < bytes) ring[slot] = new Uint8Array(bytes);
    return ring[slot]!.subarray(0, bytes);
  };
}

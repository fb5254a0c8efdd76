/**
 * Memory of what comes over the network, given back when it is used.
 *
 * @module
 */

/**
 * Frees a chunk that a stream of a request or an answer handed over, and that is used up. It has no bytes after that.
 *
 * Left to the garbage collector, each chunk lies in memory that was not used for long, or never: for finding it the
 * system takes more time than for bringing the bytes.
 */
export function freeChunk({ buffer, length }: Uint8Array): void {
  // What is a part of something is not the chunk's alone.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === length) buffer.transfer(0);
}

/**
 * A record of what went wrong, in shared memory: written once, by whoever is first.
 *
 * Layout: state (0 none, 1 being written, 2 there), rank, byte length, UTF-8 text.
 *
 * @module
 */

/** Bytes of a record, a multiple of 64. */
export const FAULT_BYTES = 1024;

const HEADER = 12;
const PRESENT = 2;

/** What went wrong, and with which rank; -1 when with none. */
export interface Fault {
  readonly rank: number;
  readonly text: string;
}

/** Writes a fault, cut to what fits, unless there is one already. */
export function writeFault(buffer: ArrayBufferLike, offset: number, fault: Fault): void {
  const words = new Int32Array(buffer, offset, 3);
  if (Atomics.compareExchange(words, 0, 0, 1) !== 0) return;
  const text = new Uint8Array(FAULT_BYTES - HEADER);
  const { written } = new TextEncoder().encodeInto(fault.text, text);
  new Uint8Array(buffer, offset + HEADER, FAULT_BYTES - HEADER).set(text);
  words[1] = fault.rank;
  words[2] = written;
  Atomics.store(words, 0, PRESENT);
}

/** The fault, once it is completely written. */
export function readFault(buffer: ArrayBufferLike, offset: number): Fault | undefined {
  const words = new Int32Array(buffer, offset, 3);
  if (Atomics.load(words, 0) !== PRESENT) return undefined;
  // A decoder takes no shared memory.
  const text = new Uint8Array(buffer, offset + HEADER, words[2]!).slice();
  return { rank: words[1]!, text: new TextDecoder().decode(text) };
}

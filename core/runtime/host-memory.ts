/**
 * Host memory that threads share: one growable WebAssembly.Memory per rank. A backend that keeps its tensors there lets
 * the other ranks of the host read them without a copy.
 *
 * Growing gives the memory a new `buffer` object while views over the old one stay valid, so identity does not tell
 * whether a view lies in it. Its first bytes therefore carry a signature, which whoever allocates leaves alone.
 *
 * @module
 */
import { DeviceError } from "../contracts/errors.ts";

/** Bytes at the start of a host memory that nobody may use. */
export const HOST_MEMORY_RESERVED = 64;

/** Bytes of a WebAssembly page. */
const PAGE = 65536;

const SIGNATURE_WORDS = 4;
let created = 0;

/**
 * A shared memory that can grow to 4 GiB, or to what address space allows; nothing is committed until it is used.
 *
 * @throws DeviceError when not even a small one can be had.
 */
export function createHostMemory(): WebAssembly.Memory {
  const memory = createSharedMemory(1, 65536);
  new Int32Array(memory.buffer, 0, SIGNATURE_WORDS).set([0x46534450, 0x686f7374, 0x6d656d, ++created]);
  return memory;
}

/** A shared memory of `initial` pages of 64 KiB that can grow to `maximum`, or to half of it as often as needed. */
export function createSharedMemory(initial: number, maximum: number): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial, maximum, shared: true });
  } catch (cause) {
    const half = maximum >>> 1;
    if (half > initial) return createSharedMemory(initial, half);
    throw new DeviceError(`shared memory: the system refused ${maximum} pages of 64 KiB`, { cause });
  }
}

/** The memory's buffer, at least `bytes` long; grows it when needed. @throws DeviceError when it cannot grow so far. */
export function growMemory(memory: WebAssembly.Memory, bytes: number): ArrayBufferLike {
  const missing = bytes - memory.buffer.byteLength;
  if (missing > 0) {
    try {
      memory.grow(Math.ceil(missing / PAGE));
    } catch (cause) {
      throw new DeviceError(
        `shared memory: cannot grow to ${bytes} bytes from ${memory.buffer.byteLength}; one rank has at most 4 GiB`,
        { cause },
      );
    }
  }
  return memory.buffer;
}

/** The memory's buffer as its owner has grown it. `bytes` is a length that it is known to have. */
export function peerBuffer(memory: WebAssembly.Memory, bytes: number): ArrayBufferLike {
  // Growth by nothing makes this thread look at what another thread has made of the memory.
  if (memory.buffer.byteLength < bytes) memory.grow(0);
  return memory.buffer;
}

/** Whether `buffer` is this host memory, now or before it grew. */
export function isOfHostMemory(memory: WebAssembly.Memory, buffer: ArrayBufferLike): boolean {
  const current: ArrayBufferLike = memory.buffer;
  if (buffer === current) return true;
  if (!(buffer instanceof SharedArrayBuffer) || buffer.byteLength < PAGE) return false;
  if (buffer.byteLength > current.byteLength) return false;
  const own = new Int32Array(current, 0, SIGNATURE_WORDS);
  const other = new Int32Array(buffer, 0, SIGNATURE_WORDS);
  return own[0] !== 0 && own.every((word, i) => word === other[i]);
}

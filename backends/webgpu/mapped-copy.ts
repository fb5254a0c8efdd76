/**
 * Copies between host memory and mapped device memory.
 *
 * The fast way leaves this thread, which has commands to record meanwhile: libc's `memcpy`, called through koffi, runs on
 * the runtime's thread pool, several pieces at a time (one thread copies 12 GB/s, eight copy 30 to 50, seen on an H200's
 * host). It knows addresses only, so it maps eight bytes where the plain way maps all: an ArrayBuffer over device memory
 * counts as garbage of its size once it is unmapped, and hundreds of megabytes of them a step kept the collector busy.
 *
 * @module
 */
import { availableParallelism } from "node:os";
import process from "node:process";

/** Below this a call to another thread costs more than the copy. */
const SMALLEST = 2 ** 18;
/** Bytes of one call. */
const PIECE = 2 ** 21;
/** Calls at a time, in order: what was asked for first is there first. More were slower where several ranks copy. */
const CALLS = 8;

/** Fills and empties buffers that are mapped from their start on. Buffer and host memory belong to a call until it resolves. */
export interface MappedCopy {
  /** Copies `source` over the start of a buffer that is mapped for writing. Goes before reads that wait. */
  fill(buffer: GPUBuffer, source: Uint8Array): Promise<void>;
  /** Fills `target` from byte `skip` on of a buffer that is mapped for reading. */
  drain(target: Uint8Array, buffer: GPUBuffer, skip: number): Promise<void>;
}

/** On this thread. Ranges of a mapped buffer begin at multiples of 8 and are multiples of 4 long. */
export const copyHere: MappedCopy = {
  async fill(buffer, source) {
    new Uint8Array(buffer.getMappedRange(0, Math.ceil(source.length / 4) * 4)).set(source);
  },
  async drain(target, buffer, skip) {
    const end = skip + target.length;
    const mapped = new Uint8Array(buffer.getMappedRange(0, Math.ceil(end / 4) * 4));
    target.set(mapped.subarray(skip, end));
  },
};

type Address = Uint8Array | bigint;

/** The parts of koffi that are used. */
interface Native {
  readonly memcpy: {
    async(target: Address, source: Address, bytes: number, done: (error: unknown) => void): void;
  };
  address(bytes: Uint8Array): bigint;
}

let found: Promise<MappedCopy> | undefined;

/** The fastest way that this machine has. */
export function findMappedCopy(): Promise<MappedCopy> {
  found ??= load();
  return found;
}

async function load(): Promise<MappedCopy> {
  if (availableParallelism() === 1) return copyHere;
  try {
    const { default: koffi } = await import("koffi");
    const library = koffi.load(process.platform === "win32" ? "msvcrt.dll" : null);
    const memcpy = library.func("void *memcpy(void *target, const void *source, size_t bytes)");
    return copyElsewhere({ memcpy, address: (bytes) => koffi.address(bytes) });
  } catch {
    return copyHere;
  }
}

function copyElsewhere({ memcpy, address }: Native): MappedCopy {
  let free = CALLS;
  const fills: (() => void)[] = [];
  const drains: (() => void)[] = [];
  const call = async (queue: (() => void)[], target: Address, source: Address, bytes: number) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => queue.push(resolve));
    try {
      await new Promise<void>((resolve, reject) => {
        memcpy.async(target, source, bytes, (error) => (error ? reject(error) : resolve()));
      });
    } finally {
      // Whoever waits takes this one's place.
      const next = fills.shift() ?? drains.shift();
      if (next === undefined) free++;
      else next();
    }
  };
  /** Calls `copy` for every piece of `host`; they stay referenced, hence in place, until all are done. */
  const inPieces = async (host: Uint8Array, copy: (part: Uint8Array, at: number) => Promise<void>) => {
    const parts: Uint8Array[] = [];
    for (let at = 0; at < host.length; at += PIECE) parts.push(host.subarray(at, at + PIECE));
    const ends = await Promise.allSettled(parts.map((part, i) => copy(part, i * PIECE)));
    parts.length = 0;
    const failed = ends.find((end) => end.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  };
  const start = (buffer: GPUBuffer): bigint => address(new Uint8Array(buffer.getMappedRange(0, 8)));
  return {
    async fill(buffer, source) {
      if (source.length < SMALLEST) return copyHere.fill(buffer, source);
      const to = start(buffer);
      await inPieces(source, (part, at) => call(fills, to + BigInt(at), part, part.length));
    },
    async drain(target, buffer, skip) {
      if (target.length < SMALLEST) return copyHere.drain(target, buffer, skip);
      const from = start(buffer) + BigInt(skip);
      await inPieces(target, (part, at) => call(drains, part, from + BigInt(at), part.length));
    },
  };
}

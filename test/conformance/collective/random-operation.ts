/**
 * One operation of a random sequence as plain data: how a rank starts it, and what it must give.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Collective, ReductionOp, SharedInputs, Work } from "../../../core/contracts/collective.ts";
import { bytesOf, DTYPES, type DType, type HostArray, hostArray } from "../../../core/contracts/dtype.ts";
import { concatenated, inputOf, reduced, sameBits } from "./oracle.ts";

/** A call that all ranks make alike. */
export interface OperationSpec {
  readonly name: "allGather" | "reduceScatter" | "allReduce" | "broadcast" | "share" | "barrier";
  readonly dtype: DType;
  readonly op: ReductionOp;
  /** Elements of one rank's share. */
  readonly length: number;
  /** Reduced to a rank of the group. */
  readonly root: number;
  readonly seed: number;
  /** allGather from its own slice of the output; share of what is filled later. */
  readonly inPlace: boolean;
}

/** A started operation. */
export interface StartedOperation {
  readonly work: Work;
  /** After `work`: what is wrong, if anything. */
  check(): string | undefined;
  readonly result: HostArray;
  /** After `work` of a share, which is held until then. Resolves when every rank has done the same. */
  release?(): Promise<void>;
}

/** Gives uninitialised arrays: from private memory, from memory that ranks share, or from windows. */
export type Allocate = (dtype: DType, length: number) => HostArray;

/** Allocates from a memory as a backend would, never freeing. The first 64 bytes stay untouched. */
export function allocateIn(memory: WebAssembly.Memory): Allocate {
  let top = 64;
  return (dtype, length) => {
    const offset = top;
    top += Math.ceil((length * DTYPES[dtype].bytes) / 8) * 8;
    const missing = top - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    return hostArray(dtype, memory.buffer, offset, length);
  };
}

/** Allocates a window for every array, never released. */
export function allocateWindows(collective: Collective): Allocate {
  return (dtype, length) => {
    const { bytes } = collective.window(length * DTYPES[dtype].bytes);
    bytes.fill(0xff);
    return hostArray(dtype, bytes.buffer, bytes.byteOffset, length);
  };
}

/** Results by operation and world size: ranks of one event loop need not each work them out. */
const known: Map<string, HostArray> = new Map();

/** Starts an operation over buffers from `allocate`. */
export function startOperation(
  collective: Collective,
  spec: OperationSpec,
  allocate: Allocate,
): StartedOperation {
  const { rank, size } = collective;
  const { name, dtype, op, length, seed } = spec;
  const root = spec.root % size;
  const own = (count: number): HostArray => {
    const array = allocate(dtype, count);
    bytesOf(array).set(bytesOf(inputOf(dtype, count, seed, rank)));
    return array;
  };
  const started = (work: Work, result: HostArray): StartedOperation => ({
    work,
    result,
    check: () =>
      sameBits(result, expected(spec, rank, size))
        ? undefined
        : `rank ${rank} of ${size}: ${JSON.stringify(spec)}`,
  });

  if (name === "allGather") {
    const output = allocate(dtype, size * length);
    const input = spec.inPlace
      ? output.subarray(rank * length, (rank + 1) * length)
      : allocate(dtype, length);
    bytesOf(input).set(bytesOf(inputOf(dtype, length, seed, rank)));
    return started(collective.allGather(output, input), output);
  }
  if (name === "reduceScatter") {
    const output = allocate(dtype, length);
    return started(collective.reduceScatter(output, own(size * length), op, dtype), output);
  }
  if (name === "barrier") return started(collective.barrier(), new Uint8Array(0));
  if (name === "share") return startShare(collective, spec, allocate);
  const data = own(length);
  if (name === "allReduce") return started(collective.allReduce(data, op, dtype), data);
  return started(collective.broadcast(data, root), data);
}

function startShare(collective: Collective, spec: OperationSpec, allocate: Allocate): StartedOperation {
  const { rank, size } = collective;
  const { dtype, length, seed, inPlace } = spec;
  const input = allocate(dtype, length);
  const fill = (): void => bytesOf(input).set(bytesOf(inputOf(dtype, length, seed, rank)));
  if (!inPlace) fill();
  const filled = inPlace ? sleep((seed + rank) % 3).then(fill) : undefined;
  const sharing = collective.share(input, filled);
  let shared: SharedInputs | undefined;
  const result = (): HostArray => concatenated(dtype, shared?.inputs ?? []);
  return {
    work: {
      wait: async () => {
        shared = await sharing;
      },
    },
    get result() {
      return result();
    },
    check: () =>
      shared?.inputs.length === size && sameBits(result(), expected(spec, rank, size))
        ? undefined
        : `rank ${rank} of ${size}: ${JSON.stringify(spec)}`,
    release: async () => {
      shared!.release();
      await shared!.released;
      // Whoever looked longer than it said would see this.
      bytesOf(input).fill(0xee);
    },
  };
}

function expected(spec: OperationSpec, rank: number, size: number): HostArray {
  const key = `${size} ${JSON.stringify(spec)}`;
  let result = known.get(key);
  if (!result) {
    if (known.size > 50) known.clear();
    result = resultOf(spec, size);
    known.set(key, result);
  }
  return spec.name === "reduceScatter" ? result.slice(rank * spec.length, (rank + 1) * spec.length) : result;
}

/** What every rank ends with; for reduceScatter, what they end with together. */
function resultOf({ name, dtype, op, length, seed, root }: OperationSpec, size: number): HostArray {
  if (name === "barrier") return new Uint8Array(0);
  if (name === "broadcast") return inputOf(dtype, length, seed, root % size);
  const count = name === "reduceScatter" ? size * length : length;
  const inputs = Array.from({ length: size }, (_, rank) => inputOf(dtype, count, seed, rank));
  return name === "allGather" || name === "share" ? concatenated(dtype, inputs) : reduced(inputs, op, dtype);
}

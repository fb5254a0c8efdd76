/**
 * What the ranks of the collectives benchmark run.
 *
 * @module
 */

import { DTYPES, type DType, type HostArray, hostArray, newHostArray } from "../../core/contracts/dtype.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import { HOST_MEMORY_RESERVED } from "../../core/runtime/host-memory.ts";

/** Seconds per operation of one rank. */
export interface CollectiveTimes {
  readonly barrier: number;
  /** Of `bytes` gathered or scattered. */
  readonly allGather: number;
  readonly reduceScatter: number;
  readonly allReduce: number;
}

/** Times operations whose whole buffer has `bytes`, in host memory or outside it. */
export async function timeCollectives(
  { collective, hostMemory }: RankContext,
  args: {
    readonly bytes: number;
    readonly shared: boolean;
    readonly rounds: number;
    readonly dtype: DType;
  },
): Promise<CollectiveTimes> {
  const { rank, size } = collective;
  const { dtype } = args;
  const length = args.bytes / DTYPES[dtype].bytes;
  const share = length / size;
  if (args.shared) hostMemory!.grow(Math.ceil((args.bytes * 2 + HOST_MEMORY_RESERVED) / 65536));
  const make = (index: number): HostArray => {
    const start = HOST_MEMORY_RESERVED + index * args.bytes;
    const array = args.shared
      ? hostArray(dtype, hostMemory!.buffer, start, length)
      : newHostArray(dtype, length);
    // A small number in any of the dtypes, bits of bfloat16 included.
    return (array as Uint16Array).fill(dtype === "bfloat16" ? 0x3f80 + rank : 1 + rank);
  };
  const whole = make(0);
  const other = make(1);
  const shard = other.subarray(0, share);

  const time = async (run: () => Promise<void>): Promise<number> => {
    for (let i = 0; i < 3; i++) await run();
    const begin = performance.now();
    for (let i = 0; i < args.rounds; i++) await run();
    return (performance.now() - begin) / args.rounds / 1000;
  };
  return {
    barrier: await time(() => collective.barrier().wait()),
    allGather: await time(() => collective.allGather(whole, shard).wait()),
    reduceScatter: await time(() => collective.reduceScatter(shard, whole, "sum", dtype).wait()),
    allReduce: await time(() => collective.allReduce(whole, "avg", dtype).wait()),
  };
}

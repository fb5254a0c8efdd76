/**
 * What the ranks of the collectives benchmark run.
 *
 * @module
 */
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

/** Times float32 operations whose whole buffer has `bytes`, in host memory or outside it. */
export async function timeCollectives(
  { collective, hostMemory }: RankContext,
  args: { readonly bytes: number; readonly shared: boolean; readonly rounds: number },
): Promise<CollectiveTimes> {
  const { rank, size } = collective;
  const length = args.bytes / 4;
  const share = length / size;
  if (args.shared) hostMemory!.grow(Math.ceil((args.bytes * 2 + HOST_MEMORY_RESERVED) / 65536));
  const make = (index: number): Float32Array =>
    args.shared
      ? new Float32Array(hostMemory!.buffer, HOST_MEMORY_RESERVED + index * args.bytes, length)
      : new Float32Array(length);
  const whole = make(0).fill(rank);
  const other = make(1).fill(1);
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
    reduceScatter: await time(() => collective.reduceScatter(shard, whole, "sum", "float32").wait()),
    allReduce: await time(() => collective.allReduce(whole, "avg", "float32").wait()),
  };
}

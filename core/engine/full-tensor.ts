/**
 * Whole parameters from their shards, one at a time.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import { type HostArray, newHostArray } from "../contracts/dtype.ts";
import { forEachRun } from "../nn/init.ts";
import type { Parameter } from "../nn/parameter.ts";
import { numelOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/**
 * The whole values of a parameter, row-major, on every rank of its group.
 *
 * Collective over that group. Holds about two copies of the one parameter on the host while it runs. Calls that overlap
 * run one after the other, in the order in which they were made.
 */
export async function gatherParameter(parameter: Parameter): Promise<HostArray> {
  return (await gatherLike(parameter, parameter.local, true))!;
}

/**
 * As `gatherParameter`, of any tensor that is cut as the parameter's `local` is: what an optimizer keeps of it.
 *
 * @param wanted whether this rank wants the whole, or helps the others only.
 */
export function gatherLike(
  parameter: Parameter,
  values: Tensor,
  wanted: boolean,
): Promise<HostArray | undefined> {
  const group = parameter.manager?.group;
  if (group === undefined) return wanted ? values.data() : Promise.resolve(undefined);
  // Devices answer when they like: without a queue, ranks could come to the group's collectives in different orders.
  const gathered = (queues.get(group) ?? Promise.resolve()).then(() => gather(parameter, values, wanted));
  queues.set(
    group,
    gathered.catch(() => {}),
  );
  return gathered;
}

/** The last gather of each group. */
const queues = new WeakMap<Collective, Promise<unknown>>();

async function gather(parameter: Parameter, values: Tensor, wanted: boolean): Promise<HostArray | undefined> {
  const { manager } = parameter;
  const alone = manager === undefined || manager.group.size === 1;
  if (alone && !wanted) return undefined;
  const own = await values.data();
  if (alone) return own;
  const { group } = manager;
  const held = (rank: number) => manager.pieces(rank).reduce((sum, piece) => sum + numelOf(piece.sizes), 0);
  let padded = 0;
  for (let rank = 0; rank < group.size; rank++) padded = Math.max(padded, held(rank));
  const { dtype } = values;
  const input = newHostArray(dtype, padded);
  input.set(own as never);
  const gathered = newHostArray(dtype, padded * group.size);
  await group.allGather(gathered, input).wait();
  if (!wanted) return undefined;
  const whole = newHostArray(dtype, parameter.numel);
  for (let rank = 0; rank < group.size; rank++) {
    for (const piece of manager.pieces(rank)) {
      const base = rank * padded + piece.localOffset;
      forEachRun(parameter.shape, piece, (start, offset, length) => {
        whole.set(gathered.subarray(base + offset, base + offset + length) as never, start);
      });
    }
  }
  return whole;
}

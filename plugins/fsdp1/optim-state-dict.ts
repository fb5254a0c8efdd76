/**
 * State dicts of an optimizer over a sharded model: keyed by the model's names, whether the optimizer has its parameters
 * or flat ones, so that they fit any wrapping and any number of ranks. Follows torch/distributed/fsdp/_optim_utils.py.
 *
 * @module
 */
import type { StateTensor } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import {
  type FullOptimizerStateDict,
  getOptimizerStateDict,
  setOptimizerStateDict,
} from "../../core/engine/optimizer-state-dict.ts";
import { optimizerState, placeOf } from "../../core/engine/sharded-state.ts";
import { stateParameters } from "../../core/engine/state-parameters.ts";
import type { Optimizer } from "../../core/optim/optimizer.ts";
import type { Wrapped } from "./wrapped.ts";

/**
 * FULL: the whole state. Collective.
 *
 * @param rank0Only the other ranks get an empty dict.
 * @throws CheckpointError on every rank when ranks differ in what they have state of.
 */
export async function fullOptimStateDict(
  root: Wrapped,
  optimizer: Optimizer,
  rank0Only: boolean,
): Promise<FullOptimizerStateDict> {
  await requireAgreement(root, optimizer);
  return await getOptimizerStateDict(root.module, optimizer, { fullStateDict: true, cpuOffload: rank0Only });
}

/** Lest some ranks wait for others' tensors. */
async function requireAgreement({ module, groups }: Wrapped, optimizer: Optimizer): Promise<void> {
  const { group } = groups;
  if (group.size === 1) return;
  const all = stateParameters(module);
  const most = Int32Array.from(all, ({ owner }) => optimizer.state(owner)?.tensors.length ?? -1);
  const least = most.map((count) => -count);
  await group.allReduce(most, "max", "int32").wait();
  await group.allReduce(least, "max", "int32").wait();
  const odd = all.find((_, i) => most[i] !== -least[i]!);
  if (odd === undefined) return;
  throw new CheckpointError(
    `Gathering an optimizer's state failed: of parameter "${odd.name}" some ranks have state and others have not, step on all of them first`,
  );
}

/**
 * Takes over a whole state, of which each rank keeps its part; parameters without state in it begin anew.
 *
 * @param sent the first rank alone has the dict; collective then.
 * @throws CheckpointError on every rank for a dict that does not fit the model or the optimizer's groups; nothing is
 * changed then.
 */
export async function loadFullOptimStateDict(
  { module }: Wrapped,
  optimizer: Optimizer,
  dict: FullOptimizerStateDict,
  sent: boolean,
): Promise<void> {
  await setOptimizerStateDict(module, optimizer, dict, { fullStateDict: true, broadcastFromRank0: sent });
}

/**
 * SHARDED: the state as the boxes that lie here, live, as `optim.state.<name>.<key>` and `optim.state.<name>.step`, which
 * is what checkpoints of any version and wrapping call it. No communication.
 */
export function shardedOptimStateDict({ module, groups }: Wrapped, optimizer: Optimizer): StateTensor[] {
  return optimizerState(module, optimizer, placeOf(groups));
}

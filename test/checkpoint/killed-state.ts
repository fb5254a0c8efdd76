/**
 * The state that `killed.test.ts` and the process that it kills save: what it holds follows from the step.
 *
 * @module
 */
import type { ShardedState } from "../../core/contracts/checkpointer.ts";
import { dimZero, type FullTensor, patternTensor, shardedState } from "./states.ts";

/** The whole tensors of a step: one that changes with it, some blocks of a disk on each rank, and one that does not. */
export function killedTensors(step: number): readonly FullTensor[] {
  return [
    { ...patternTensor(`step ${step}`, "float32", [40, 107]), name: "model.w" },
    { ...patternTensor("frozen", "bfloat16", [9]), name: "model.frozen" },
  ];
}

/** A rank's part of two. */
export function killedState(step: number, rank: number): ShardedState {
  const state = shardedState(killedTensors(step), dimZero(2), rank, { step });
  const [varying, frozen] = state.tensors;
  return { ...state, tensors: [varying!, { ...frozen!, constant: true }] };
}

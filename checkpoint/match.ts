/**
 * What of a checkpoint goes where: the tensors that are wanted against those that are saved, by name, shape and dtype,
 * before any of their boxes are looked at.
 *
 * @module
 */
import type { LoadDifferences, LoadOptions, StateTensor } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { isCastable } from "./cast.ts";
import { listFaults, type ManifestTensor } from "./manifest.ts";
import { tensorDifference, type WantedTensor } from "./plan.ts";

/** A tensor to be filled. */
export interface Match {
  /** Index in the state. */
  readonly tensor: number;
  /** What is wanted of the checkpoint: its name and dtype there. */
  readonly wanted: WantedTensor;
}

/**
 * Matches a state with a checkpoint.
 *
 * @throws CheckpointError that lists every tensor which `options.fit` does not allow to be missing, left over or different.
 */
export function matchTensors(
  saved: readonly ManifestTensor[],
  state: readonly StateTensor[],
  options: LoadOptions,
): { readonly matches: readonly Match[]; readonly differences: LoadDifferences } {
  const { fit = "complete", rename = (name: string) => name, cast = false } = options;
  const byName = new Map(saved.map((tensor) => [tensor.name, tensor]));
  const unexpected = new Set(byName.keys());
  const missing: string[] = [];
  const mismatched: string[] = [];
  const faults: string[] = [];
  const matches: Match[] = [];
  for (const [t, want] of state.entries()) {
    const name = rename(want.name);
    if (name === undefined) continue;
    const have = byName.get(name);
    unexpected.delete(name);
    const as = name === want.name ? "" : `, in the checkpoint ${name}`;
    const dtype = have !== undefined && cast && isCastable(have.dtype, want.dtype) ? have.dtype : want.dtype;
    const problem = have === undefined ? "missing" : tensorDifference(have, { ...want, dtype });
    if (have === undefined) missing.push(want.name);
    else if (problem !== undefined) mismatched.push(want.name);
    if (problem !== undefined) faults.push(`tensor ${want.name}${as}: ${problem}`);
    else matches.push({ tensor: t, wanted: { ...want, name, dtype } });
  }
  if (fit === "strict") for (const name of unexpected) faults.push(`tensor ${name}: not wanted`);
  if (fit !== "partial" && faults.length > 0) throw new CheckpointError(listFaults(faults));
  return { matches, differences: { missing, unexpected: [...unexpected], mismatched } };
}

/**
 * Whole gradients for `summonFullParams`, and their parts back.
 *
 * @module
 */
import { copyInto } from "../../core/engine/copies.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";
import { gatherShard, joinParts } from "./gather-shard.ts";
import { type FlatUnit, ownRanges } from "./wrapped.ts";

/** This rank's parts of a unit's gradients, by parameter; absent where it has none. */
export type GradParts = readonly (Tensor | undefined)[];

/**
 * Puts whole gradients in place of this rank's parts, where any rank has one. Collective.
 *
 * @returns the parts, for `putBackGrads`.
 */
export async function summonGrads(unit: FlatUnit): Promise<GradParts> {
  const { engine, layout, parameters } = unit;
  const { group } = engine;
  const parts = parameters.map(({ parameter }) => parameter.grad);
  const has = Int32Array.from(parts, (part) => (part === undefined ? 0 : 1));
  if (group.size > 1) await group.allReduce(has, "max", "int32").wait();
  if (!has.includes(1)) return parts;

  using own = joinParts(unit, parts);
  using whole = await gatherShard(unit, own, "gradient");
  for (const [i, { parameter }] of parameters.entries()) {
    if (has[i] === 1) parameter.grad = whole.alias(parameter.shape, layout.starts[i]!);
  }
  return parts;
}

/** Puts the parts back; with `writeback` they get what the whole gradients hold now. */
export function putBackGrads(unit: FlatUnit, parts: GradParts, writeback: boolean): void {
  const ranges = new Map(ownRanges(unit).map((range) => [range.parameter, range]));
  for (const [i, { parameter }] of unit.parameters.entries()) {
    const whole = parameter.grad;
    const part = parts[i];
    if (whole === part) continue;
    const range = ranges.get(i);
    if (writeback && whole === undefined) {
      part?.dispose();
      parameter.grad = undefined;
      continue;
    }
    parameter.grad = part;
    if (writeback && whole !== undefined && range !== undefined) {
      const { local } = parameter;
      parameter.grad ??= local.device.allocate(local.shape, local.dtype, "gradient");
      using now = whole.alias([range.end - range.begin], range.begin);
      copyInto(parameter.grad, now);
    }
    whole?.dispose();
  }
}

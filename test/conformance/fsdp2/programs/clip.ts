/** Clipping gradients, sharded or on replicas. */
import { clipGradNorm } from "../../../../core/engine/clip.ts";
import { gatherLike } from "../../../../core/engine/full-tensor.ts";
import type { ConformanceRank } from "../rank.ts";
import { type ModelSpec, modelOf, pass, type ShardSpec, shard } from "./models.ts";
import { averageGradients } from "./training.ts";

/** How gradients are clipped. */
export interface ClipSpec {
  readonly model: ModelSpec;
  /** Absent: on replicas, whose averaged gradients stay as they are. */
  readonly sharding?: ShardSpec;
  readonly normType: number;
  readonly maxNorm: number;
  /** Only every second parameter. */
  readonly subset: boolean;
}

/** The norm, and whole gradients after it. */
export async function clip(
  rank: ConformanceRank,
  spec: ClipSpec,
): Promise<{ readonly norm: number | undefined; readonly gradients: readonly (readonly number[])[] }> {
  const { model: kind, sharding, normType, maxNorm } = spec;
  const model = modelOf(kind);
  if (sharding !== undefined) await shard(rank, model, sharding);
  await model.to(rank.device);
  await pass(rank, model, kind, 0);
  const all = model.parameters();
  let norm: number | undefined;
  if (sharding === undefined) await averageGradients(rank, model);
  else
    norm = await clipGradNorm(spec.subset ? all.filter((_, i) => i % 2 === 0) : all, maxNorm, { normType });
  const gradients: (readonly number[])[] = [];
  for (const parameter of all) {
    gradients.push(Array.from((await gatherLike(parameter, parameter.grad!, true))!, Number));
  }
  model.dispose();
  return { norm, gradients };
}

/** Where a sharded model's first values come from. */

import { StateError } from "../../../../core/contracts/errors.ts";
import { gatherParameter } from "../../../../core/engine/full-tensor.ts";
import { loadFromRank0 } from "../../../../core/engine/rank0-loading.ts";
import { deviceMeshFromGroups } from "../../../../core/runtime/device-mesh.ts";
import { fullyShard } from "../../../../plugins/fsdp2/mod.ts";
import type { ConformanceRank } from "../rank.ts";
import { type ModelSpec, modelOf, type ShardSpec, shard } from "./models.ts";

/** How a model gets its values. */
export interface StartSpec {
  readonly model: ModelSpec;
  /**
   * Sharded before it has values or after; with values that the first rank alone knows; over a mesh made of groups that
   * there are; or not sharded at all.
   */
  readonly how: "before" | "after" | "rank0" | "groups" | "whole";
  readonly sharding?: ShardSpec;
}

/** A parameter as a rank has it. */
export interface StartedParameter {
  readonly name: string;
  readonly shape: readonly number[];
  readonly whole: readonly number[];
  readonly local: { readonly shape: readonly number[]; readonly values: readonly number[] };
}

/** Starts a model, and says what each parameter holds. */
export async function start(rank: ConformanceRank, spec: StartSpec): Promise<readonly StartedParameter[]> {
  const model = modelOf(spec.model);
  const { how, sharding = {} } = spec;
  if (how === "whole" || how === "after") await model.to(rank.device);
  if (how === "groups") fullyShard(model, { mesh: deviceMeshFromGroups([rank.collective]) });
  else if (how !== "whole") await shard(rank, model, sharding);
  if (how === "rank0") {
    for (const parameter of rank.rank === 0 ? [] : model.parameters()) {
      parameter.initializer = () => {
        throw new StateError(`rank ${rank.rank} was asked for values`);
      };
    }
    await loadFromRank0(model, rank.device);
  } else await model.to(rank.device);
  const found: StartedParameter[] = [];
  for (const [name, parameter] of model.namedParameters()) {
    const { shape, local } = parameter;
    const values = Array.from(await local.data(), Number);
    const whole = Array.from(await gatherParameter(parameter), Number);
    found.push({ name, shape, whole, local: { shape: local.shape, values } });
  }
  model.dispose();
  return found;
}

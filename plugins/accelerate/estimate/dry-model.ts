/**
 * A model as one rank of a world has it under a strategy: cut by the FSDP version itself, without values.
 *
 * @module
 */
import { newHostArray } from "../../../core/contracts/dtype.ts";
import type { Registry } from "../../../core/contracts/plugin.ts";
import { modulesToWrap, transformerWrap } from "../../../core/engine/wrap-policy.ts";
import { checkpoint } from "../../../core/nn/activation-checkpoint.ts";
import type { CausalLanguageModel } from "../../../core/runtime/model-family.ts";
import { SHARDING } from "../../../core/runtime/sharding-version.ts";
import { checkSettings } from "../../../core/runtime/version-settings.ts";
import type { Device } from "../../../core/tensor/device.ts";
import type { Call } from "./communication.ts";
import { loneMesh } from "./lone-rank.ts";
import { buildModel, type ModelChoice } from "./model-choice.ts";
import { meshShape, type Precision, type Strategy, type World } from "./strategies.ts";

/** A model under a strategy in a world. */
export interface DryModelInit {
  readonly registry: Registry;
  readonly model: ModelChoice;
  readonly strategy: Strategy;
  readonly world: World;
  /** Default 0, the rank that holds most: layouts cut from the front, and what is short is so at the end. */
  readonly rank?: number;
  /** Of strategies that have none of their own. Default `no`. */
  readonly precision?: Precision;
  /** Every block is computed again in the backward pass. */
  readonly activationCheckpointing?: boolean;
}

const DTYPES = { no: undefined, bf16: "bfloat16", fp16: "float16" } as const;

/** What is around a model. */
export interface DryModelPlace {
  /** Keeps the shards of strategies that offload. */
  readonly host: Device;
  /** Told of collectives that are no unit's. */
  readonly heard?: (call: Call) => void;
}

/**
 * Builds and shards a model, every block a unit and the rest the root's, as `train` does.
 *
 * @throws ConfigError when the version refuses the strategy.
 */
export function dryModel(init: DryModelInit, { host, heard }: DryModelPlace): CausalLanguageModel {
  const { registry, strategy, world } = init;
  const { shardingStrategy, reshardAfterForward: reshard } = strategy;
  const model = buildModel(registry, init.model);
  const wrap = transformerWrap(model.module, model.blockClasses);
  if (init.activationCheckpointing === true) {
    for (const block of modulesToWrap(model.module, wrap)) checkpoint(block);
  }
  const dtype = DTYPES[strategy.precision ?? init.precision ?? "no"];
  const neighbours = reshard === "node" ? world.ranksPerNode : undefined;
  const version = registry.get(SHARDING, strategy.version);
  version.shard(model.module, {
    mesh: loneMesh({ rank: init.rank ?? 0, shape: meshShape(strategy, world), neighbours, heard }),
    wrap,
    reshardAfterForward: reshard === "node" ? neighbours : reshard,
    precision: dtype === undefined ? undefined : { paramDtype: dtype, reduceDtype: dtype },
    offload: strategy.offload === true ? { device: host } : undefined,
    settings: {
      ...checkSettings(strategy.version, version, {}),
      ...(shardingStrategy === undefined ? {} : { shardingStrategy }),
    },
  });
  // Nobody looks at values: what a parameter draws of them is empty.
  for (const parameter of model.module.parameters()) {
    parameter.initial = async () => newHostArray(parameter.originalDType, 0);
  }
  return model;
}

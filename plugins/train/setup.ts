/**
 * What the rank programs of this plugin share: a device, and a sharded model on it.
 *
 * @module
 */
import type { TensorReader } from "../../core/contracts/checkpointer.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { BACKEND, FORMAT, type Registry } from "../../core/contracts/plugin.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import { noWrap, sizeWrap, transformerWrap, type WrapPolicy } from "../../core/engine/wrap-policy.ts";
import { initDeviceMesh } from "../../core/runtime/device-mesh.ts";
import { type CausalLanguageModel, MODEL } from "../../core/runtime/model-family.ts";
import { SHARDING } from "../../core/runtime/sharding-version.ts";
import { Device } from "../../core/tensor/device.ts";
import type { FsdpConfig, ModelConfig, PlaceConfig } from "./config.ts";

/** This rank's device. The caller disposes its backend. */
export async function createDevice(
  registry: Registry,
  context: RankContext,
  place: PlaceConfig,
  seed: number,
): Promise<Device> {
  const backend = await registry.get(BACKEND, place.backend).create({
    hostMemory: context.hostMemory,
    localWorldSize: context.localWorldSize,
    rank: context.rank,
    settings: place.backendSettings,
  });
  return new Device(backend, { seed, rank: context.rank });
}

/** Opens the file with a model's values, when it has one. */
export async function openWeights(registry: Registry, model: ModelConfig): Promise<TensorReader | undefined> {
  return model.weights === undefined
    ? undefined
    : await registry.get(FORMAT, "safetensors").open(model.weights);
}

/** Builds a model, shards it over all ranks and gives each rank its part of the values. */
export async function createShardedModel(
  registry: Registry,
  context: RankContext,
  device: Device,
  config: ModelConfig,
  fsdp: FsdpConfig,
  precision?: "float16" | "bfloat16" | undefined,
): Promise<CausalLanguageModel> {
  const { name, capabilities } = device.backend;
  if (precision !== undefined && !capabilities.computeDTypes.includes(precision)) {
    throw new ConfigError(
      `cannot use --mixed-precision: given ${precision}, backend "${name}" computes in ${capabilities.computeDTypes.join(", ")} here`,
    );
  }
  const weights = await openWeights(registry, config);
  try {
    const model = registry.get(MODEL, config.family).create(config.config, weights);
    const mesh = await initDeviceMesh(context.collective);
    registry.get(SHARDING, `fsdp${fsdp.version}`).shard(model.module, {
      mesh,
      wrap: wrapPolicy(model, fsdp),
      reshardAfterForward: fsdp.reshardAfterForward,
      forwardPrefetch: fsdp.forwardPrefetch,
      precision: precision === undefined ? undefined : { paramDtype: precision, reduceDtype: precision },
    });
    await model.module.to(device);
    return model;
  } finally {
    await weights?.close();
  }
}

function wrapPolicy(model: CausalLanguageModel, fsdp: FsdpConfig): WrapPolicy {
  if (fsdp.wrapPolicy === "NO_WRAP") return noWrap;
  if (fsdp.wrapPolicy === "SIZE_BASED_WRAP") return sizeWrap(fsdp.minNumParams);
  return transformerWrap(model.module, fsdp.wrapClasses.length > 0 ? fsdp.wrapClasses : model.blockClasses);
}

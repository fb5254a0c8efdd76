/**
 * What the rank programs of this plugin share: a device, and a sharded model on it.
 *
 * @module
 */
import type { TensorReader } from "../../core/contracts/checkpointer.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { BACKEND, FORMAT, type Registry } from "../../core/contracts/plugin.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import { createHostDevice } from "../../core/runtime/host-device.ts";
import { type CausalLanguageModel, MODEL } from "../../core/runtime/model-family.ts";
import type { Place } from "../../core/runtime/place.ts";
import type { ShardingConfig } from "../../core/runtime/run-config.ts";
import { materialize, shardModel } from "../../core/runtime/shard-model.ts";
import { Device } from "../../core/tensor/device.ts";
import type { ModelConfig } from "./config.ts";

/** Where one rank computes, and where it keeps shards if not there. */
export interface RankDevices {
  readonly device: Device;
  readonly host: Device | undefined;
  dispose(): Promise<void>;
}

/** This rank's devices. The caller disposes them. */
export async function createDevices(
  registry: Registry,
  context: RankContext,
  place: Place,
  fsdp: ShardingConfig,
  seed: number,
): Promise<RankDevices> {
  const backend = await registry.get(BACKEND, place.backend).create({
    hostMemory: context.hostMemory,
    localWorldSize: context.localWorldSize,
    rank: context.rank,
    settings: place.backendSettings,
  });
  const host = fsdp.offload ? await createHostDevice(registry, context, seed) : undefined;
  return {
    device: new Device(backend, { seed, rank: context.rank }),
    host,
    dispose: async () => {
      await backend.dispose();
      await host?.backend.dispose();
    },
  };
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
  { device, host }: RankDevices,
  config: ModelConfig,
  fsdp: ShardingConfig,
  precision?: "float16" | "bfloat16" | undefined,
): Promise<CausalLanguageModel> {
  const { name, capabilities } = device.backend;
  if (precision !== undefined && !capabilities.computeDTypes.includes(precision)) {
    throw new ConfigError(
      `cannot use --mixed-precision: given ${precision}, backend "${name}" computes in ${capabilities.computeDTypes.join(", ")} here`,
    );
  }
  // The others are sent what rank 0 reads.
  const reads = context.rank === 0 || !fsdp.cpuRamEfficientLoading;
  const weights = reads ? await openWeights(registry, config) : undefined;
  try {
    const model = registry.get(MODEL, config.family).create(config.config, weights);
    await shardModel(registry, model.module, fsdp, {
      collective: context.collective,
      localWorldSize: context.localWorldSize,
      blockClasses: model.blockClasses,
      rootModules: model.rootModules,
      offload: host === undefined ? undefined : { device: host },
      precision: precision === undefined ? undefined : { paramDtype: precision, reduceDtype: precision },
    });
    await materialize(model.module, device, fsdp);
    return model;
  } finally {
    await weights?.close();
  }
}

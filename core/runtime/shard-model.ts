/**
 * Shards a model as a configuration says: the mesh, the modules that become units, the version that config names.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import { ConfigError } from "../contracts/errors.ts";
import type { Registry } from "../contracts/plugin.ts";
import type { MixedPrecisionPolicy } from "../engine/mixed-precision.ts";
import type { OffloadPolicy } from "../engine/offload.ts";
import { loadFromRank0 } from "../engine/rank0-loading.ts";
import {
  modulesToWrap,
  noWrap,
  remainingSizeWrap,
  sizeWrap,
  transformerWrap,
  type WrapPolicy,
} from "../engine/wrap-policy.ts";
import { checkpoint } from "../nn/activation-checkpoint.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { Device } from "../tensor/device.ts";
import { type DeviceMesh, initDeviceMesh } from "./device-mesh.ts";
import type { ShardingConfig } from "./run-config.ts";
import { SHARDING } from "./sharding-version.ts";
import { checkSettings } from "./version-settings.ts";

/** What a configuration does not hold. */
export interface ShardModelOptions {
  /** All ranks. */
  readonly collective: Collective;
  /** Ranks of this host. */
  readonly localWorldSize: number;
  /** Class names of the model's blocks, which TRANSFORMER_BASED_WRAP takes unless config names others. */
  readonly blockClasses?: readonly string[] | undefined;
  /** Modules that belong to the root's unit: no policy makes them, or one around them, a unit. */
  readonly rootModules?: readonly AnyModule[] | undefined;
  readonly precision?: MixedPrecisionPolicy | undefined;
  /** Where shards live when config says `offload`. */
  readonly offload?: OffloadPolicy | undefined;
  /** In place of the configured policy. */
  readonly wrap?: WrapPolicy | undefined;
  /** In place of the configured pattern. */
  readonly ignoredModules?: Iterable<AnyModule> | undefined;
  /** Settings of the version that only code can give. */
  readonly settings?: Readonly<Record<string, unknown>> | undefined;
}

const BACKWARD_PREFETCH = { BACKWARD_PRE: "pre", BACKWARD_POST: "post", NO_PREFETCH: "none" } as const;

/**
 * Shards `model` in place. Collective.
 *
 * @returns the mesh that it is sharded over.
 * @throws ConfigError or PluginError for a configuration that does not fit the model or the number of ranks.
 */
export async function shardModel(
  registry: Registry,
  model: AnyModule,
  config: ShardingConfig,
  options: ShardModelOptions,
): Promise<DeviceMesh> {
  const version = registry.get(SHARDING, config.version);
  if (config.offload && options.offload === undefined) {
    throw new ConfigError("cannot use fsdp_offload_params: no device in host memory was given");
  }
  const mesh = await shardingMesh(config, options.collective, options.localWorldSize);
  const own = checkSettings(config.version, version, config.settings);
  const { strategy, backwardPrefetch, useOrigParams, syncModuleStates } = config;
  const policy = options.wrap ?? wrapPolicy(model, config, options.blockClasses);
  const wrap = sparing(model, policy, options.rootModules ?? []);
  const units = modulesToWrap(model, wrap);
  if (config.activationCheckpointing) checkpointUnits(units);
  const fsdp1 = { shardingStrategy: strategy, useOrigParams, syncModuleStates };
  version.shard(model, {
    mesh,
    wrap,
    // "true" leaves the root to the version's own rule, which keeps it gathered.
    reshardAfterForward: config.reshardAfterForward === true ? undefined : config.reshardAfterForward,
    forwardPrefetch: config.forwardPrefetch === true,
    backwardPrefetch: backwardPrefetch === undefined ? undefined : BACKWARD_PREFETCH[backwardPrefetch],
    precision: options.precision,
    offload: config.offload ? options.offload : undefined,
    ignored: ignoredParameters(model, config, options.ignoredModules),
    settings: Object.fromEntries(
      Object.entries({ ...fsdp1, ...own, ...options.settings }).filter(([, value]) => value !== undefined),
    ),
  });
  if (typeof config.forwardPrefetch === "number") prefetchAhead([model, ...units], config.forwardPrefetch);
  return mesh;
}

/** Puts a model that `shardModel` has sharded on a device, with its initial values. Collective. */
export async function materialize(model: AnyModule, device: Device, config: ShardingConfig): Promise<void> {
  if (config.cpuRamEfficientLoading) await loadFromRank0(model, device);
  else await model.to(device);
}

/** Every unit but the root forgets its activations. */
function checkpointUnits(units: readonly AnyModule[]): void {
  if (units.length === 0) {
    throw new ConfigError(
      "cannot use fsdp_activation_checkpointing: fsdp_auto_wrap_policy takes no module of the model, allowed are policies that take some",
    );
  }
  for (const unit of units) checkpoint(unit);
}

/** A unit whose version lets it be told what to gather ahead. */
interface Prefetching {
  setModulesToForwardPrefetch(modules: readonly AnyModule[]): void;
}

/** Each unit gathers the `count` that come next in the model's order. */
function prefetchAhead(units: readonly AnyModule[], count: number): void {
  for (const [i, unit] of units.entries()) {
    if (!("setModulesToForwardPrefetch" in unit)) {
      throw new ConfigError(
        `cannot use fsdp_forward_prefetch: given ${count}, this FSDP version has true and false`,
      );
    }
    (unit as Prefetching).setModulesToForwardPrefetch(units.slice(i + 1, i + 1 + count));
  }
}

/** One dim of all ranks, or replicas by shards. */
async function shardingMesh(
  config: ShardingConfig,
  world: Collective,
  localWorldSize: number,
): Promise<DeviceMesh> {
  const hybrid = config.strategy?.startsWith("HYBRID_SHARD") === true;
  const replicas = config.replicas ?? (hybrid ? world.size / localWorldSize : 1);
  if (!Number.isInteger(replicas) || world.size % replicas !== 0) {
    throw new ConfigError(
      `cannot shard over ${world.size} ranks: given a dp_replicate_size of ${replicas}, allowed are numbers that divide them`,
    );
  }
  if (replicas === 1 && !hybrid) return await initDeviceMesh(world);
  if (config.strategy !== undefined && !hybrid) {
    throw new ConfigError(
      `cannot use a dp_replicate_size of ${replicas}: given fsdp_sharding_strategy ${config.strategy}, allowed with it are HYBRID_SHARD and HYBRID_SHARD_ZERO2`,
    );
  }
  return await initDeviceMesh(world, [replicas, world.size / replicas], { dimNames: ["replicate", "shard"] });
}

/** The configured policy for a model. @throws ConfigError for a class that the model lacks. */
function wrapPolicy(
  model: AnyModule,
  config: ShardingConfig,
  blockClasses: readonly string[] = [],
): WrapPolicy {
  switch (config.wrapPolicy) {
    case "NO_WRAP":
      return noWrap;
    case "SIZE_BASED_WRAP":
      return config.version === "fsdp1"
        ? remainingSizeWrap(config.minNumParams)
        : sizeWrap(config.minNumParams);
    case "TRANSFORMER_BASED_WRAP":
      return transformerWrap(model, config.wrapClasses ?? blockClasses);
  }
}

/** The policy, but for modules that `kept` lie in. */
function sparing(model: AnyModule, policy: WrapPolicy, kept: readonly AnyModule[]): WrapPolicy {
  const around = new Set(
    [...model.modules()].filter((module) => kept.some((inner) => [...module.modules()].includes(inner))),
  );
  return (module, name, context) => !around.has(module) && policy(module, name, context);
}

/** Parameters of the modules to be left alone, whose names the pattern fits as a whole. */
function ignoredParameters(
  model: AnyModule,
  config: ShardingConfig,
  modules: Iterable<AnyModule> | undefined,
): ReadonlySet<Parameter> | undefined {
  if (modules !== undefined) return new Set([...modules].flatMap((module) => module.parameters()));
  if (config.ignoredModules === undefined) return undefined;
  const pattern = new RegExp(`^(?:${config.ignoredModules})$`);
  const found = [...model.namedModules()].filter(([name]) => name !== "" && pattern.test(name));
  if (found.length === 0) {
    throw new ConfigError(
      `cannot use fsdp_ignored_modules: no module's whole name fits ${JSON.stringify(config.ignoredModules)}, they are ${moduleNames(model)}`,
    );
  }
  return new Set(found.flatMap(([, module]) => module.parameters()));
}

/** The first few names, for a message. */
function moduleNames(model: AnyModule): string {
  const names = [...model.namedModules()].map(([name]) => name).filter((name) => name !== "");
  return names.length > 8 ? `${names.slice(0, 8).join(", ")} ...` : names.join(", ");
}

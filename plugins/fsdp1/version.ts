/**
 * FSDP1 as config picks it: what config says about sharding, as options of `FullyShardedDataParallel`.
 *
 * @module
 */
import * as v from "valibot";
import { ConfigError } from "../../core/contracts/errors.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import type { ShardingOptions, ShardingVersion } from "../../core/runtime/sharding-version.ts";
import type { BackwardPrefetch, MixedPrecision, ShardingStrategy } from "./options.ts";
import { shardInPlace } from "./shard-in-place.ts";

/** FSDP1's own settings. */
const Settings = v.strictObject({
  shardingStrategy: v.optional(
    v.picklist(["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "HYBRID_SHARD_ZERO2"]),
  ),
  useOrigParams: v.optional(v.boolean()),
  limitAllGathers: v.optional(v.boolean()),
  // Initial values follow from one seed: ranks start from equal ones as it is.
  syncModuleStates: v.optional(v.boolean()),
  paramInitFn: v.optional(v.custom<(module: AnyModule) => void>((value) => typeof value === "function")),
});

const BACKWARD_PREFETCH: Readonly<Record<"pre" | "post" | "none", BackwardPrefetch>> = {
  pre: "BACKWARD_PRE",
  post: "BACKWARD_POST",
  none: "NO_PREFETCH",
};

/**
 * The version `"fsdp1"`. Modules keep listing their own parameters, so that checkpoints have the model's names; without
 * `useOrigParams` just the layout and what it demands differ.
 */
export const fsdp1Version: ShardingVersion = Object.freeze<ShardingVersion>({
  shard(model, options) {
    const { mesh, wrap, forwardPrefetch, backwardPrefetch, offload, ignored } = options;
    const { useOrigParams = true, limitAllGathers, paramInitFn } = settingsOf(options);
    shardInPlace(model, {
      mesh,
      shardingStrategy: strategyOf(options),
      autoWrapPolicy: wrap,
      forwardPrefetch,
      backwardPrefetch: backwardPrefetch === undefined ? undefined : BACKWARD_PREFETCH[backwardPrefetch],
      mixedPrecision: precisionOf(options),
      cpuOffload: offload === undefined ? undefined : { offloadParams: true, device: offload.device },
      ignoredStates: ignored,
      useOrigParams,
      limitAllGathers,
      paramInitFn,
      // Config chose for any number of ranks.
      onWarning: () => {},
    });
  },
});

function settingsOf({ settings = {} }: ShardingOptions): v.InferOutput<typeof Settings> {
  const checked = v.safeParse(Settings, settings);
  if (checked.success) return checked.output;
  const [issue] = checked.issues;
  throw new ConfigError(`cannot shard with FSDP1: setting "${v.getDotPath(issue)}": ${issue.message}`);
}

/** The strategy that was named, else the one that `reshardAfterForward` and the mesh amount to. */
function strategyOf(options: ShardingOptions): ShardingStrategy {
  const { shardingStrategy } = settingsOf(options);
  const { reshardAfterForward, mesh } = options;
  if (typeof reshardAfterForward === "number") {
    throw new ConfigError(
      `cannot shard with FSDP1: reshardAfterForward is ${reshardAfterForward}, allowed are true and false, or FSDP2`,
    );
  }
  if (shardingStrategy !== undefined) return shardingStrategy;
  if (mesh.shape.length === 2) return reshardAfterForward === false ? "HYBRID_SHARD_ZERO2" : "HYBRID_SHARD";
  return reshardAfterForward === false ? "SHARD_GRAD_OP" : "FULL_SHARD";
}

function precisionOf({ precision }: ShardingOptions): MixedPrecision | undefined {
  if (precision?.outputDtype !== undefined) {
    throw new ConfigError(
      `cannot shard with FSDP1: outputDtype is "${precision.outputDtype}", allowed is none, or FSDP2`,
    );
  }
  return precision;
}

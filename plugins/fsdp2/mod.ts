/**
 * FSDP2 as a version plugin.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import type { Plugin } from "../../core/contracts/plugin.ts";
import { modulesToWrap } from "../../core/engine/wrap-policy.ts";
import { SHARDING, type ShardingOptions } from "../../core/runtime/sharding-version.ts";
import { type FullyShardOptions, fullyShard } from "./fully-shard.ts";

export { registerForwardMethod } from "./forward-method.ts";
export { type FSDPModule, isFSDPModule, type RecurseOptions, type UnshardHandle } from "./fsdp-module.ts";
export { type FullyShardOptions, fullyShard, type ShardedModules } from "./fully-shard.ts";

/** Registers FSDP version `"fsdp2"`. */
export const fsdp2Plugin: Plugin = Object.freeze({
  name: "fsdp2",
  setup(registry) {
    registry.register(SHARDING, "fsdp2", {
      shard(model, options) {
        const own = optionsOf(options);
        for (const module of modulesToWrap(model, options.wrap)) fullyShard(module, own);
        fullyShard(model, own);
      },
    });
  },
} satisfies Plugin);

/** What config says, as `fullyShard` takes it. @throws ConfigError for what FSDP2 does not have. */
function optionsOf(options: ShardingOptions): FullyShardOptions {
  const { mesh, reshardAfterForward, forwardPrefetch, backwardPrefetch, precision, offload, ignored } =
    options;
  if (backwardPrefetch !== undefined && backwardPrefetch !== "pre") {
    throw new ConfigError(
      `cannot shard with FSDP2: backwardPrefetch is "${backwardPrefetch}", allowed is "pre", which it always does`,
    );
  }
  const [unknown] = Object.keys(options.settings ?? {});
  if (unknown !== undefined) {
    throw new ConfigError(`cannot shard with FSDP2: setting "${unknown}" was given, which it does not have`);
  }
  return {
    mesh,
    reshardAfterForward,
    forwardPrefetch,
    mpPolicy: precision,
    offloadPolicy: offload,
    ignoredParams: ignored,
  };
}

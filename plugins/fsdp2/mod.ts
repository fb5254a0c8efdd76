/**
 * FSDP2 as a version plugin.
 *
 * @module
 */
import type { Plugin } from "../../core/contracts/plugin.ts";
import { modulesToWrap } from "../../core/engine/wrap-policy.ts";
import { SHARDING } from "../../core/runtime/sharding-version.ts";
import { fullyShard } from "./fully-shard.ts";

export { type FullyShardOptions, fullyShard } from "./fully-shard.ts";

/** Registers FSDP version `"fsdp2"`. */
export const fsdp2Plugin: Plugin = Object.freeze({
  name: "fsdp2",
  setup(registry) {
    registry.register(SHARDING, "fsdp2", {
      shard(model, { mesh, wrap, reshardAfterForward, forwardPrefetch, precision }) {
        const options = { mesh, reshardAfterForward, forwardPrefetch, mpPolicy: precision };
        for (const module of modulesToWrap(model, wrap)) fullyShard(module, options);
        fullyShard(model, options);
      },
    });
  },
} satisfies Plugin);

/**
 * A version of FSDP as config picks it: how it shards a model that a wrap policy cuts into units.
 *
 * @module
 */
import type { Kind } from "../contracts/plugin.ts";
import type { MixedPrecisionPolicy } from "../engine/mixed-precision.ts";
import type { WrapPolicy } from "../engine/wrap-policy.ts";
import type { AnyModule } from "../nn/module.ts";
import type { DeviceMesh } from "./device-mesh.ts";

/** What config says about sharding. */
export interface ShardingOptions {
  readonly mesh: DeviceMesh;
  readonly wrap: WrapPolicy;
  /** Free gathered parameters after forward; `undefined`: the version's own rule. */
  readonly reshardAfterForward?: boolean | undefined;
  /** Gather the next unit's parameters while this one's forward computes. Default false. */
  readonly forwardPrefetch?: boolean | undefined;
  /** What is gathered, computed and reduced in; the parameters' own dtype by default. */
  readonly precision?: MixedPrecisionPolicy | undefined;
}

/** A registered version. */
export interface ShardingVersion {
  /** Shards `model` in place: every module that `wrap` chooses becomes a unit, the rest the root's. */
  shard(model: AnyModule, options: ShardingOptions): void;
}

/** Versions, by name: `"fsdp1"`, `"fsdp2"`. */
export const SHARDING: Kind<ShardingVersion> = { name: "FSDP version" };

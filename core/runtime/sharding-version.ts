/**
 * A version of FSDP as config picks it: how it shards a model that a wrap policy cuts into units.
 *
 * @module
 */
import type { OptionSpec } from "../contracts/command.ts";
import type { Kind } from "../contracts/plugin.ts";
import type { MixedPrecisionPolicy } from "../engine/mixed-precision.ts";
import type { OffloadPolicy } from "../engine/offload.ts";
import type { BackwardPrefetch } from "../engine/shard-options.ts";
import type { WrapPolicy } from "../engine/wrap-policy.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { DeviceMesh } from "./device-mesh.ts";

/** What config says about sharding. A version refuses what it has no meaning for. */
export interface ShardingOptions {
  /** One dim: parameters are cut over it. Two: replicated over the first, cut over the second. */
  readonly mesh: DeviceMesh;
  readonly wrap: WrapPolicy;
  /** Free gathered parameters after forward (a number: keep that part of them); `undefined`: the version's own rule. */
  readonly reshardAfterForward?: boolean | number | undefined;
  /** Gather the next unit's parameters while this one's forward computes. Default false. */
  readonly forwardPrefetch?: boolean | undefined;
  /** When the backward pass gathers ahead; `undefined`: the version's own rule. */
  readonly backwardPrefetch?: BackwardPrefetch | undefined;
  /** What is gathered, computed and reduced in; the parameters' own dtype by default. */
  readonly precision?: MixedPrecisionPolicy | undefined;
  /** Where shards, gradients and optimizer state live, if not where the model computes. */
  readonly offload?: OffloadPolicy | undefined;
  /** Parameters that are left alone. */
  readonly ignored?: ReadonlySet<Parameter> | undefined;
  /** Options that one version alone has, by their names there; checked by it. */
  readonly settings?: Readonly<Record<string, unknown>> | undefined;
}

/** A registered version. */
export interface ShardingVersion {
  /**
   * Options of its own that config may set, by name: keys of `fsdp_config` in a config file, `--fsdp-options NAME=VALUE` on
   * a command line. Their values arrive in `settings`, checked.
   */
  readonly options?: Readonly<Record<string, OptionSpec>>;
  /** Shards `model` in place: every module that `wrap` chooses becomes a unit, the rest the root's. */
  shard(model: AnyModule, options: ShardingOptions): void;
}

/** Versions, by name: `"fsdp1"`, `"fsdp2"`. */
export const SHARDING: Kind<ShardingVersion> = { name: "FSDP version" };

/**
 * What the engine can be told about a unit. FSDP versions offer these to their users under names of their own.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import type { ShardFactory } from "../contracts/shard.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { GradientDivision } from "./gradient-division.ts";
import type { MixedPrecisionPolicy } from "./mixed-precision.ts";
import type { OffloadPolicy } from "./offload.ts";

/**
 * When the backward pass gathers the unit that computes next: `pre`: before this one's gradients are computed (most
 * overlap), `post`: after this one's parameters are freed (less memory), `none`: when it is needed.
 */
export type BackwardPrefetch = "pre" | "post" | "none";

/** How to make a unit of a module, or of several. */
export interface ShardModuleOptions {
  /** Cuts the parameters, those of one dtype together. */
  readonly layout: ShardFactory;
  /** Another layout for single parameters. Those with one and the same factory (and dtype) are cut together. */
  readonly layoutFor?: ((parameter: Parameter) => ShardFactory | undefined) | undefined;
  /** The ranks over which parameters are cut. One rank: nothing is cut. */
  readonly group: Collective;
  /**
   * The ranks that hold the same shard as this one (hybrid sharding): gradients are reduce-scattered in `group`, then
   * all-reduced here. Left out: none but this rank.
   */
  readonly replicate?: Collective | undefined;
  /**
   * `true`: gathered parameters are freed after forward. `false`: they stay for the backward pass. A number k that
   * divides the group: each rank keeps 1/k of them, and backward gathers from k neighbours (k = 1 is `false`, the whole
   * group is `true`). Left out: true, but false in the root.
   */
  readonly reshardAfterForward?: boolean | number | undefined;
  /**
   * Gather the next unit's parameters while this one's forward computes, in the order of the pass before and as long as
   * this pass goes the same way. Default false.
   */
  readonly forwardPrefetch?: boolean | undefined;
  /** Default `pre`. */
  readonly backwardPrefetch?: BackwardPrefetch | undefined;
  /** What the unit computes and communicates in; its parameters' own dtypes by default. */
  readonly precision?: MixedPrecisionPolicy | undefined;
  /** Leave gradients in the dtype in which they were reduced; an optimizer then needs them cast. Default false. */
  readonly keepLowPrecisionGrads?: boolean | undefined;
  /** Shards, gradients and optimizer state live on another device than the one that computes. */
  readonly offload?: OffloadPolicy | undefined;
  /** Parameters to leave alone: each rank has them whole and looks after their gradients itself. */
  readonly ignored?: ReadonlySet<Parameter> | undefined;
  /** How a sum of gradients becomes a mean. Default `averageDivision`, FSDP2's rule; `splitDivision` is FSDP1's. */
  readonly gradientDivision?: GradientDivision | undefined;
}

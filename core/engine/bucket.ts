/**
 * Buckets: the parameters of a unit that lie in one flat shard. A unit has one as a rule; more when its parameters
 * differ in dtype or layout, and one for each parameter that gathers other bytes than it stores.
 *
 * @module
 */
import type { DType } from "../contracts/dtype.ts";
import { ConfigError } from "../contracts/errors.ts";
import type { Shard, ShardFactory } from "../contracts/shard.ts";
import type { AllGatherExtension } from "../nn/all-gather-extension.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { ShardModuleOptions } from "./shard-options.ts";

/** Parameters that are cut together. */
export interface Bucket {
  /** Their indices within the unit, in the order of the layout's parameters. */
  readonly members: readonly number[];
  /** What they are stored in. */
  readonly dtype: DType;
  readonly shard: Shard;
  readonly extension: AllGatherExtension | undefined;
}

/**
 * Sorts parameters into buckets, in the order in which the first of each comes.
 *
 * @throws ConfigError for an extension with one of its two methods only.
 */
export function makeBuckets(
  parameters: readonly Parameter[],
  { layout, layoutFor, group }: Pick<ShardModuleOptions, "layout" | "layoutFor" | "group">,
): readonly Bucket[] {
  const drafts: {
    readonly members: number[];
    readonly dtype: DType;
    readonly factory: ShardFactory;
    readonly extension: AllGatherExtension | undefined;
  }[] = [];
  for (const [i, parameter] of parameters.entries()) {
    const { originalDType: dtype, allGatherExtension: extension } = parameter;
    const steps = [extension?.preAllGather, extension?.postAllGather].filter(
      (step) => typeof step === "function",
    );
    if (extension !== undefined && steps.length !== 2) {
      throw new ConfigError(
        `Sharding parameter "${parameter.name}" failed: its allGatherExtension has ${steps.length} of two methods, allowed are preAllGather and postAllGather together`,
      );
    }
    const factory = layoutFor?.(parameter) ?? layout;
    const draft = drafts.find(
      (known) =>
        known.dtype === dtype &&
        known.factory === factory &&
        known.extension === undefined &&
        extension === undefined,
    );
    if (draft === undefined) drafts.push({ members: [i], dtype, factory, extension });
    else draft.members.push(i);
  }
  return drafts.map(({ members, dtype, factory, extension }) => {
    const specs = members.map((i) => ({ name: parameters[i]!.name, shape: parameters[i]!.shape, dtype }));
    return { members, dtype, shard: factory(specs, group.size), extension };
  });
}

/**
 * `fullyShard`: FSDP2's one function, as `torch.distributed.fsdp.fully_shard`.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import type { ShardFactory } from "../../core/contracts/shard.ts";
import type { MixedPrecisionPolicy } from "../../core/engine/mixed-precision.ts";
import type { OffloadPolicy } from "../../core/engine/offload.ts";
import { shardModule } from "../../core/engine/shard-module.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import { Parameter } from "../../core/nn/parameter.ts";
import type { DeviceMesh } from "../../core/runtime/device-mesh.ts";
import { Device } from "../../core/tensor/device.ts";
import { normalizeDim } from "../../core/tensor/shape.ts";
import { dim0Shard, dimShard } from "./dim-shard.ts";
import { addMethods, type FSDPModule } from "./fsdp-module.ts";

/** Options of `fullyShard`. */
export interface FullyShardOptions {
  /**
   * One dim: the ranks over which parameters are cut. Two (hybrid sharding): replicated over the first dim, cut over the
   * second.
   */
  readonly mesh: DeviceMesh;
  /**
   * `true`: gathered parameters are freed after forward and gathered again for backward (least memory). `false`: they
   * stay until their backward is over (least communication). A number k that divides the ranks of a shard: each rank
   * keeps 1/k of them, and backward gathers from k neighbours. Left out: true, but false for the root, whose backward
   * comes next anyway.
   */
  readonly reshardAfterForward?: boolean | number | undefined;
  /**
   * The dim on which a parameter is cut, from the end when negative; nothing: the first. Asked once for every parameter of
   * the group.
   */
  readonly shardPlacementFn?: ((parameter: Parameter) => number | undefined) | undefined;
  /** What is gathered, computed and reduced in. Shards, gradients and optimizer state keep the parameters' own dtype. */
  readonly mpPolicy?: MixedPrecisionPolicy | undefined;
  /** Keeps shards, gradients and optimizer state in host memory, on a CPU device, while another one computes. */
  readonly offloadPolicy?: OffloadPolicy | undefined;
  /** Parameters to leave alone: each rank has them whole, and their gradients are its own. */
  readonly ignoredParams?: Iterable<Parameter> | undefined;
  /**
   * Gather the next group's parameters while this one's forward computes, in the order of the pass before: more overlap
   * where transfers take time, one group's parameters more at a time. Default false.
   */
  readonly forwardPrefetch?: boolean | undefined;
}

/** A list of modules, each with the methods of a sharded one. */
export type ShardedModules<T extends readonly AnyModule[]> = { [I in keyof T]: T[I] & FSDPModule };

/**
 * Shards the parameters below `module` that no earlier call has taken: one call, one group that is gathered and
 * reduced together. Call it on the blocks first, then on the model. Works before or after the model is on a device.
 *
 * A list of modules makes one group: gathered for the first of them that computes, freed after the last. Modules that
 * share a parameter must be in one.
 *
 * @returns what was given: names, classes and parameters stay as they are, and the methods of `FSDPModule` are added.
 * @throws ConfigError for a mesh or option that it cannot honour, or a parameter that another group has.
 * @throws StateError when a module was sharded already.
 * @throws ShapeError for a parameter without dims, or without the dim that `shardPlacementFn` names.
 */
export function fullyShard<M extends AnyModule>(module: M, options: FullyShardOptions): M & FSDPModule;
export function fullyShard<const T extends readonly AnyModule[]>(
  modules: T,
  options: FullyShardOptions,
): ShardedModules<T>;
export function fullyShard(
  target: AnyModule | readonly AnyModule[],
  options: FullyShardOptions,
): AnyModule | readonly AnyModule[] {
  const { mesh, reshardAfterForward, shardPlacementFn, mpPolicy, offloadPolicy, forwardPrefetch } = options;
  const dims = mesh.shape.length;
  if (dims !== 1 && dims !== 2) {
    throw new ConfigError(
      `fullyShard() failed: a mesh of ${dims} dims, allowed are 1 (cut) and 2 (replicated, cut)`,
    );
  }
  if (!["undefined", "boolean", "number"].includes(typeof reshardAfterForward)) {
    throw new ConfigError(
      `fullyShard() failed: reshardAfterForward ${JSON.stringify(reshardAfterForward)}, allowed are true, false, a number or nothing`,
    );
  }
  if (offloadPolicy !== undefined && !(offloadPolicy.device instanceof Device)) {
    throw new ConfigError(
      "fullyShard() failed: offloadPolicy without a device, allowed is { device }, a CPU's",
    );
  }
  const ignored = new Set(options.ignoredParams);
  for (const each of ignored) {
    if (each instanceof Parameter) continue;
    throw new ConfigError("fullyShard() failed: ignoredParams has something else, allowed are parameters");
  }
  shardModule(target, {
    layout: dim0Shard,
    layoutFor: shardPlacementFn && ((parameter) => placement(parameter, shardPlacementFn)),
    group: mesh.group(dims - 1),
    replicate: dims === 2 ? mesh.group(0) : undefined,
    reshardAfterForward,
    forwardPrefetch,
    precision: mpPolicy,
    offload: offloadPolicy,
    ignored,
  });
  for (const module of new Set([target].flat() as AnyModule[])) addMethods(module);
  return target;
}

function placement(
  parameter: Parameter,
  choose: (parameter: Parameter) => number | undefined,
): ShardFactory | undefined {
  const dim = choose(parameter);
  if (dim === undefined) return undefined;
  return dimShard(normalizeDim(dim, parameter.shape.length, `Sharding parameter "${parameter.name}"`));
}

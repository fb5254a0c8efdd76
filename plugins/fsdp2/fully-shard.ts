/**
 * `fullyShard`: FSDP2's one function, as `torch.distributed.fsdp.fully_shard`.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import type { MixedPrecisionPolicy } from "../../core/engine/mixed-precision.ts";
import { shardModule } from "../../core/engine/shard-module.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import type { DeviceMesh } from "../../core/runtime/device-mesh.ts";
import { dim0Shard } from "./dim0-shard.ts";

/** Options of `fullyShard`. */
export interface FullyShardOptions {
  /** Ranks over which parameters are cut: a mesh of one dim. */
  readonly mesh: DeviceMesh;
  /**
   * `true`: gathered parameters are freed after forward and gathered again for backward (least memory). `false`: they
   * stay until their backward is over (least communication). Left out: true, but false for the root, whose backward
   * comes next anyway.
   */
  readonly reshardAfterForward?: boolean | undefined;
  /**
   * Gather the next unit's parameters while this one's forward computes, in the order of the pass before: more overlap
   * where transfers take time, one unit's parameters more at a time. Default false.
   */
  readonly forwardPrefetch?: boolean | undefined;
  /** What is gathered, computed and reduced in. Shards, gradients and optimizer state keep the parameters' own dtype. */
  readonly mpPolicy?: MixedPrecisionPolicy | undefined;
}

/**
 * Shards the parameters below `module` that no earlier call has taken: one call, one group that is gathered and
 * reduced together. Call it on the blocks first, then on the model. Works before or after the model is on a device.
 *
 * @returns the module itself: names, classes and parameters stay as they are.
 * @throws ConfigError for a mesh or option that it cannot honour.
 * @throws StateError when the module was sharded already.
 * @throws ShapeError for a parameter without dims.
 */
export function fullyShard<M extends AnyModule>(module: M, options: FullyShardOptions): M {
  const { mesh, reshardAfterForward, forwardPrefetch, mpPolicy } = options;
  if (mesh.shape.length !== 1) {
    throw new ConfigError(`fullyShard() failed: a mesh of ${mesh.shape.length} dims, allowed is 1`);
  }
  if (reshardAfterForward !== undefined && typeof reshardAfterForward !== "boolean") {
    throw new ConfigError(
      `fullyShard() failed: reshardAfterForward ${JSON.stringify(reshardAfterForward)}, allowed are true, false or nothing`,
    );
  }
  const precision = mpPolicy;
  shardModule(module, {
    layout: dim0Shard,
    group: mesh.group(0),
    reshardAfterForward,
    forwardPrefetch,
    precision,
  });
  return module;
}

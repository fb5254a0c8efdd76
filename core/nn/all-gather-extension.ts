/**
 * All-gather extension: a parameter whose group gathers other bytes than the parameter stores, float8 values and their
 * scale for example, as PyTorch's `fsdp_pre_all_gather` and `fsdp_post_all_gather` of tensor subclasses.
 *
 * The law:
 * - Every rank gives as many inputs, of the same dtypes and lengths: what is cut unevenly is given at its padded length.
 * - Inputs and the result lie on `device`, where the unit computes, and pass to the engine, which frees them.
 * - `postAllGather` gives the whole parameter, on every rank the same. The optimizer goes on to see the stored shard.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import type { DType } from "../contracts/dtype.ts";
import type { Device } from "../tensor/device.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** What an extension is told about the gather. */
export interface AllGatherContext {
  /** The parameter's name. */
  readonly name: string;
  /** Shape of the whole parameter. */
  readonly shape: Shape;
  /** What the unit computes in: the policy's `paramDtype`, or the parameter's own dtype. */
  readonly paramDtype: DType;
  /** Ranks over which the parameter is cut. */
  readonly group: Collective;
  /** Where the unit computes. */
  readonly device: Device;
}

/** What is gathered in place of a parameter's values. `M` is whatever the first step wants to tell the second. */
export interface AllGatherExtension<M = unknown> {
  /**
   * What this rank gives.
   *
   * @param shard this rank's stored elements, flat, zero-padded to as many as every rank stores. It stays the engine's.
   */
  preAllGather(
    shard: Tensor,
    context: AllGatherContext,
  ): { readonly inputs: readonly Tensor[]; readonly metadata: M };
  /**
   * The whole parameter, owned by the caller, from what all ranks gave.
   *
   * @param outputs for each input one flat tensor [ranks x input's elements], in rank order. They stay the engine's.
   * @param metadata what this rank's `preAllGather` returned.
   */
  postAllGather(outputs: readonly Tensor[], metadata: M, context: AllGatherContext): Tensor;
  /** The stored shard was written by an optimizer or a load, as on every rank: what the extension keeps of its values is stale. */
  updated?(): void;
}

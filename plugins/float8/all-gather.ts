/**
 * The gather of one parameter as bytes of float8_e4m3fn: each rank scales and rounds its shard, bytes and scales travel,
 * and every rank has the parameter's floats again. After torchao's `WeightWithDynamicFloat8CastTensor`
 * (torchao/float8/fsdp_utils.py), with scales that travel too, so that they need not be agreed on before.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import type { CopyBox } from "../../core/contracts/kernels.ts";
import { converted } from "../../core/engine/copies.ts";
import { planMoves } from "../../core/engine/moves.ts";
import type { AllGatherContext, AllGatherExtension } from "../../core/nn/all-gather-extension.ts";
import type { Parameter } from "../../core/nn/parameter.ts";
import { numelOf } from "../../core/tensor/shape.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";

/** What one scale is for: the whole matrix (as much of it as a rank has, unless agreed on), or one row. */
export type Float8Recipe = "tensorwise" | "rowwise";

/** How values are scaled. */
export interface Float8Scaling {
  readonly recipe: Float8Recipe;
  /** Scales are powers of two, which change no digit of a value: rounding to a byte is the only error. */
  readonly roundScalesToPowerOf2: boolean;
}

/** Gathers one parameter. */
export class Float8AllGather implements AllGatherExtension<undefined> {
  readonly #parameter: Parameter;
  readonly #scaling: Float8Scaling;
  #amax: number | undefined;

  constructor(parameter: Parameter, scaling: Float8Scaling) {
    this.#parameter = parameter;
    this.#scaling = scaling;
  }

  /** Whether the ranks could still agree on one scale for what is stored now. */
  get wantsAmax(): boolean {
    return this.#scaling.recipe === "tensorwise" && this.#amax === undefined;
  }

  /** The largest magnitude on any rank, until the shard is written to. */
  setAmax(amax: number): void {
    this.#amax = amax;
  }

  updated(): void {
    this.#amax = undefined;
  }

  preAllGather(
    shard: Tensor,
    { device }: AllGatherContext,
  ): { readonly inputs: readonly Tensor[]; readonly metadata: undefined } {
    const { kernels } = device.backend;
    using values = converted(shard, "float32", "communication");
    const columns = this.#scaling.recipe === "rowwise" ? this.#rowLength(values.numel) : values.numel;
    const scales = device.allocate([values.numel / columns], "float32", "communication");
    const codes = device.allocate([values.numel], "uint8", "communication");
    this.#largest(values, scales, columns);
    kernels.float8Scale(scales.span, scales.span, this.#scaling.roundScalesToPowerOf2);
    kernels.toFloat8(values.span, scales.span, codes.span, columns);
    return { inputs: [codes, scales], metadata: undefined };
  }

  postAllGather(outputs: readonly Tensor[], _: undefined, context: AllGatherContext): Tensor {
    const { device, shape, paramDtype } = context;
    const [codes, scales] = outputs as readonly [Tensor, Tensor];
    using values = device.allocate([codes.numel], "float32", "communication");
    device.backend.kernels.fromFloat8(codes.span, scales.span, values.span, codes.numel / scales.numel);
    const { alias, out } = this.#placement(codes.numel, context);
    const numel = numelOf(shape);
    using whole = alias === undefined ? placed(values, out, numel) : values.alias([numel], alias);
    return converted(whole, paramDtype, "communication");
  }

  /** Puts the largest magnitude of every row into `out`. */
  #largest(values: Tensor, out: Tensor, columns: number): void {
    const { device, numel } = values;
    const { kernels } = device.backend;
    if (this.#amax !== undefined) {
      kernels.fill(out.span, this.#amax);
    } else if (out.numel === 1) {
      kernels.normPower(values.span, out.span, Number.POSITIVE_INFINITY);
    } else {
      using sizes = device.allocate([numel], "float32", "communication");
      kernels.unary("abs", values.span, sizes.span);
      kernels.reduce("max", sizes.span, out.span, out.numel, columns, 1);
    }
  }

  /**
   * Elements of a row as the first rank has it, which has the longest: padding makes all as long.
   *
   * @throws ConfigError for layouts that cut somewhere in a row.
   */
  #rowLength(numel: number): number {
    const { name, manager } = this.#parameter;
    const pieces = manager!.pieces(0);
    const length = numelOf(pieces[0]!.sizes.slice(1));
    if (pieces.length === 1 && numel % length === 0) return length;
    throw new ConfigError(
      `Gathering parameter "${name}" failed: its layout cuts through rows, allowed with recipe "rowwise" are those that cut on one dim`,
    );
  }

  /** Where the parameter lies among what all ranks gave. */
  #placement(gathered: number, { name, shape, group }: AllGatherContext) {
    const manager = this.#parameter.manager!;
    const { moves } = planMoves({
      parameters: [{ name, shape, dtype: "float32" }],
      worldSize: group.size,
      shardNumel: gathered / group.size,
      pieces: (rank) =>
        manager.pieces(rank).map((piece) => ({ ...piece, parameter: 0, shardOffset: piece.localOffset })),
      localShape: () => manager.local.shape,
    });
    return moves[0]!;
  }
}

/** A tensor of the boxes, owned by the caller. */
function placed(values: Tensor, boxes: readonly CopyBox[], numel: number): Tensor {
  const whole = values.device.allocate([numel], values.dtype, "communication");
  values.device.backend.kernels.copy(values.span, whole.span, boxes);
  return whole;
}

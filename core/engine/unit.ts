/**
 * Unit: the parameters that are gathered and reduced together, and the states they go through in a step.
 *
 * Sharded -> (gather) -> unsharded -> (reshard) -> sharded, twice a step when the unit reshards after forward; after
 * its backward the gradients are reduced and each rank keeps its part. Follows FSDP2's FSDPParamGroup
 * (torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py); how parameters are cut is the Shard's business alone, so
 * FSDP1 runs through here too.
 *
 * @module
 */
import type { Collective, Work } from "../contracts/collective.ts";
import type { DType } from "../contracts/dtype.ts";
import { StateError } from "../contracts/errors.ts";
import type { MemoryCategory } from "../contracts/memory.ts";
import type { Shard, ShardFactory } from "../contracts/shard.ts";
import type { LocalPiece, Parameter, ParameterManager } from "../nn/parameter.ts";
import type { Device } from "../tensor/device.ts";
import { numelOf, type Shape } from "../tensor/shape.ts";
import type { GradRegion } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { MixedPrecisionPolicy } from "./mixed-precision.ts";
import { planMoves } from "./moves.ts";
import type { Schedule } from "./schedule.ts";
import { allGather, reduceScatter } from "./transfer.ts";

/** What a unit is made of. */
export interface UnitInit {
  /** For messages, for example the module's class. */
  readonly name: string;
  readonly parameters: readonly Parameter[];
  readonly layout: ShardFactory;
  readonly group: Collective;
  /** Free the gathered parameters after forward; `undefined`: yes, but not in the root. */
  readonly reshardAfterForward: boolean | undefined;
  readonly precision: MixedPrecisionPolicy;
  /** Gather the next unit's parameters while this one's forward computes. */
  readonly forwardPrefetch: boolean;
}

/** A reduction under way. */
interface Reduction {
  /** Indices of the parameters that take part. */
  readonly members: readonly number[];
  readonly input: Tensor;
  readonly output: Tensor;
  readonly work: Work;
}

/** Where a unit stands. */
export type UnitState = "sharded" | "gathering" | "unsharded";

/** A group of parameters that is gathered, resharded and reduced as one. */
export class Unit implements GradRegion {
  readonly name: string;
  readonly parameters: readonly Parameter[];
  readonly group: Collective;
  readonly shard: Shard;
  readonly precision: MixedPrecisionPolicy;
  readonly forwardPrefetch: boolean;
  reshardAfterForward: boolean | undefined;
  /** Whether a backward pass reduces gradients, or leaves them whole to add up. */
  requiresGradientSync = true;
  /** The root's order of things, once a forward pass began. */
  schedule: Schedule | undefined;
  readonly #plan: ReturnType<typeof planMoves>;
  #state: UnitState = "sharded";
  #flat: Tensor | undefined;
  #locals: readonly Tensor[] = [];
  #gathering: { readonly input: Tensor; readonly buffer: Tensor; readonly work: Work } | undefined;
  #reducing: Reduction | undefined;

  constructor(init: UnitInit) {
    this.name = init.name;
    this.parameters = init.parameters;
    this.group = init.group;
    this.reshardAfterForward = init.reshardAfterForward;
    this.precision = init.precision;
    this.forwardPrefetch = init.forwardPrefetch;
    const specs = init.parameters.map(({ name, shape, dtype }) => ({ name, shape, dtype }));
    this.shard = init.layout(specs, init.group.size);
    this.#plan = planMoves(this.shard);
    const device = init.parameters.find((parameter) => parameter.owned)?.device;
    for (const [i, parameter] of init.parameters.entries()) parameter.manage(this.#manager(i));
    if (device !== undefined) this.#cut(device);
  }

  get state(): UnitState {
    return this.#state;
  }

  /** The device that holds this rank's part. @throws StateError before the model was put on one. */
  get device(): Device {
    return this.#values().device;
  }

  /** Elements of the whole parameters. */
  get numel(): number {
    return this.parameters.reduce((sum, parameter) => sum + parameter.numel, 0);
  }

  /** Begins to gather the parameters, if they are not gathered already. */
  startUnshard(): void {
    if (this.#state !== "sharded") return;
    const flat = this.#values();
    this.#state = "gathering";
    if (this.group.size === 1) return;
    const input = converted(flat, this.precision.paramDtype ?? flat.dtype, "communication");
    const size = this.group.size * this.shard.shardNumel;
    const buffer = flat.device.allocate([size], input.dtype, "communication");
    this.#gathering = { input, buffer, work: allGather(this.group, buffer, input) };
  }

  /** Gathers the parameters: each holds its whole value until `reshard()`. */
  async unshard(): Promise<void> {
    this.startUnshard();
    if (this.#state !== "gathering") return;
    const flat = this.#values();
    const { device } = flat;
    await this.#gathering?.work.wait();
    this.#gathering?.input.dispose();
    // One rank: its shard is everything already.
    const buffer =
      this.#gathering?.buffer ?? converted(flat, this.precision.paramDtype ?? flat.dtype, "parameter");
    let aliased = false;
    for (const [i, parameter] of this.parameters.entries()) {
      const move = this.#plan.moves[i]!;
      if (move.alias !== undefined) {
        aliased = true;
        const offset = buffer.offset + move.alias;
        parameter.setGathered(device, buffer.dtype, buffer.storage.retain(), offset);
      } else {
        const whole = device.allocate(parameter.shape, buffer.dtype, "parameter");
        device.backend.kernels.copy(buffer.span, whole.span, move.out);
        parameter.setGathered(device, whole.dtype, whole.storage.retain(), 0);
        whole.dispose();
      }
    }
    if (aliased) device.backend.relabel(buffer.storage.buffer, "parameter");
    buffer.dispose();
    this.#gathering = undefined;
    this.#state = "unsharded";
  }

  /** Frees the gathered parameters. */
  reshard(): void {
    if (this.#state !== "unsharded") return;
    for (const parameter of this.parameters) parameter.dropGathered(this.device);
    this.#state = "sharded";
  }

  async enterBackward(): Promise<void> {
    await this.unshard();
    this.schedule?.enteredBackward(this);
  }

  async leaveBackward(): Promise<void> {
    if (this.requiresGradientSync) await this.#startReduce();
    this.reshard();
    this.schedule?.leftBackward(this);
  }

  /** Ends a started reduction: `grad` of every parameter that took part holds this rank's part. */
  async finishReduce(): Promise<void> {
    if (this.#reducing === undefined) return;
    const { members, input, output: reduced, work } = this.#reducing;
    await work.wait();
    this.#reducing = undefined;
    this.schedule?.reductions.delete(this);
    input.dispose();
    const output = converted(reduced, this.#values().dtype, "gradient");
    reduced.dispose();
    for (const i of members) this.#addGrad(i, output.alias(this.#locals[i]!.shape, this.#localOffset(i)));
    output.dispose();
  }

  /** Back to idle after a failure: nothing gathered, no partial gradients. */
  reset(): void {
    this.#gathering?.input.dispose();
    this.#gathering?.buffer.dispose();
    this.#gathering = undefined;
    this.#reducing?.input.dispose();
    this.#reducing?.output.dispose();
    this.#reducing = undefined;
    if (this.#state === "gathering") this.#state = "sharded";
    this.reshard();
    for (const parameter of this.parameters) {
      parameter.unshardedGrad?.dispose();
      parameter.unshardedGrad = undefined;
    }
  }

  /** Starts to reduce the whole gradients of the parameters that have one. */
  async #startReduce(): Promise<void> {
    const members = [...this.parameters.keys()].filter(
      (i) => this.parameters[i]!.unshardedGrad !== undefined,
    );
    if (members.length === 0) return;
    if (this.group.size === 1) {
      for (const i of members) {
        const { dtype, shape } = this.#locals[i]!;
        this.#addGrad(
          i,
          this.#takeUnsharded(i, (gradient) => converted(gradient, dtype, "gradient", shape)),
        );
      }
      return;
    }
    // One reduction in flight, so that at most two units' gradients are held.
    await this.schedule?.finishReductions();
    const { device } = this.#values();
    const { kernels } = device.backend;
    const dtype = this.precision.reduceDtype ?? this.parameters[members[0]!]!.unshardedGrad!.dtype;
    const input = device.allocate([this.group.size * this.shard.shardNumel], dtype, "communication");
    if (this.#plan.padded || members.length < this.parameters.length) kernels.fill(input.span, 0);
    for (const i of members) {
      this.#takeUnsharded(i, (gradient) => {
        const source = converted(gradient, dtype, "gradient");
        kernels.copy(source.span, input.span, this.#plan.moves[i]!.in);
        source.dispose();
      });
    }
    const output = device.allocate([this.shard.shardNumel], dtype, "gradient");
    this.#reducing = { members, input, output, work: reduceScatter(this.group, output, input, "avg") };
    this.schedule?.reductions.add(this);
  }

  /** Uses a parameter's whole gradient and lets it go. */
  #takeUnsharded<T>(index: number, use: (gradient: Tensor) => T): T {
    const parameter = this.parameters[index]!;
    const gradient = parameter.unshardedGrad!;
    const result = use(gradient);
    parameter.unshardedGrad = undefined;
    gradient.dispose();
    return result;
  }

  /** Adds a part (taken over) to a parameter's gradient. The parts of a unit may share memory, so it adds in place. */
  #addGrad(index: number, part: Tensor): void {
    const parameter = this.parameters[index]!;
    if (parameter.grad === undefined) {
      parameter.grad = part;
      return;
    }
    const { span, numel } = parameter.grad;
    part.device.backend.kernels.binary(
      "add",
      { span, strides: [1] },
      { span: part.span, strides: [1] },
      span,
      [numel],
    );
    part.dispose();
  }

  /** Allocates this rank's flat shard and the parameters' parts of it. */
  #allocate(device: Device): Tensor {
    const dtype = this.parameters[0]!.dtype;
    const flat = device.allocate([this.shard.shardNumel], dtype, "parameter");
    device.backend.kernels.fill(flat.span, 0);
    this.#flat = flat;
    this.#locals = this.parameters.map((_, i) =>
      flat.alias(this.shard.localShape(i, this.group.rank), this.#localOffset(i)),
    );
    for (const parameter of this.parameters) parameter.dropGathered(device);
    return flat;
  }

  /** Cuts this rank's part out of parameters that have values, and frees the rest. */
  #cut(device: Device): void {
    const whole = this.parameters.map((parameter) => {
      if (!parameter.owned) {
        throw new StateError(
          `Sharding unit "${this.name}" failed: parameter "${parameter.name}" has no values while others have, put the whole model on the device first, or shard before it`,
        );
      }
      return parameter.alias();
    });
    const flat = this.#allocate(device);
    for (const [i, values] of whole.entries()) {
      const base = this.group.rank * this.shard.shardNumel;
      const boxes = this.#plan.moves[i]!.in.map((box) => ({
        ...box,
        targetOffset: box.targetOffset - base,
      })).filter((box) => box.targetOffset >= 0 && box.targetOffset < this.shard.shardNumel);
      device.backend.kernels.copy(values.span, flat.span, boxes);
      values.dispose();
    }
  }

  async #materialize(device: Device): Promise<void> {
    const values: { readonly offset: number; readonly data: Awaited<ReturnType<Parameter["initial"]>> }[] =
      [];
    const flat = this.#allocate(device);
    for (const piece of this.shard.pieces(this.group.rank)) {
      const data = await this.parameters[piece.parameter]!.initial(device.seed, piece);
      values.push({ offset: piece.shardOffset, data });
    }
    for (const { offset, data } of values) {
      device.backend.write({ ...flat.span, offset: flat.offset + offset, length: data.length }, data);
    }
  }

  /** First element of a parameter's part in the flat shard. */
  #localOffset(parameter: number): number {
    const pieces = this.shard.pieces(this.group.rank);
    return pieces.find((piece) => piece.parameter === parameter)?.shardOffset ?? 0;
  }

  #values(): Tensor {
    if (this.#flat === undefined) {
      const names = this.parameters.map((parameter) => `"${parameter.name}"`).join(", ");
      throw new StateError(
        `Unit "${this.name}" has no values yet: call await model.to(device) first (parameters ${names})`,
      );
    }
    return this.#flat;
  }

  #manager(index: number): ParameterManager {
    const unit = this;
    return {
      unit: this.name,
      group: this.group,
      pieces: (rank) => this.#piecesOf(index, rank),
      get local() {
        unit.#values();
        return unit.#locals[index]!;
      },
      get materialized() {
        return unit.#flat !== undefined;
      },
      materialize: (device) => this.#materialize(device),
      updated: () => this.reshard(),
    };
  }

  #piecesOf(parameter: number, rank: number): LocalPiece[] {
    const own = this.shard.pieces(rank).filter((piece) => piece.parameter === parameter);
    return own
      .filter((piece) => numelOf(piece.sizes) > 0)
      .map(({ offsets, sizes, shardOffset }) => ({
        offsets,
        sizes,
        localOffset: shardOffset - own[0]!.shardOffset,
      }));
  }
}

/** The elements in another dtype, owned by the caller: an alias where nothing changes. */
function converted(
  source: Tensor,
  dtype: DType,
  category: MemoryCategory,
  shape: Shape = source.shape,
): Tensor {
  if (source.dtype === dtype) return source.alias(shape);
  const out = source.device.allocate(shape, dtype, category);
  source.device.backend.kernels.cast(source.span, out.span);
  return out;
}

/**
 * Parameter: a tensor that a module learns. Keeps its identity and name for life; what changes is the memory behind it.
 *
 * A new parameter has no memory at all, just a shape and an initialiser. `model.to(device)` fills it, or, when a
 * sharding version manages it, just the part of it that this rank holds. `local` is that part and `grad` the gradient
 * of that part: optimizers and checkpoints see nothing else. While its unit computes, the parameter itself holds the
 * gathered values.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import type { DType, HostArray } from "../contracts/dtype.ts";
import { newHostArray } from "../contracts/dtype.ts";
import { StateError } from "../contracts/errors.ts";
import type { RandomKey } from "../contracts/kernels.ts";
import type { MemoryCategory } from "../contracts/memory.ts";
import type { Box } from "../contracts/shard.ts";
import type { Device } from "../tensor/device.ts";
import { streamKey } from "../tensor/random.ts";
import { checkShape, numelOf, type Shape, showShape } from "../tensor/shape.ts";
import type { Storage } from "../tensor/storage.ts";
import { addGradients } from "../tensor/tape.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { AllGatherExtension } from "./all-gather-extension.ts";

/** A request for initial values. */
export interface InitRequest {
  /** Full name within the model. */
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: DType;
  /** The part that is wanted. */
  readonly box: Box;
  /** Random stream of this parameter; element i of the whole parameter draws element i of the stream. */
  readonly key: RandomKey;
  /** To fill with the box's elements, row-major. */
  readonly out: HostArray;
}

/** Gives the initial values of any part of a parameter, the same whoever asks. */
export type Initializer = (request: InitRequest) => void | Promise<void>;

/** A box of the parameter and where it begins in `local`, in elements. */
export interface LocalPiece extends Box {
  readonly localOffset: number;
}

/** How a sharding version manages a parameter. */
export interface ParameterManager {
  /** For messages: which unit. */
  readonly unit: string;
  /** This rank's part; a zero extent when it holds nothing. */
  readonly local: Tensor;
  /** The boxes that a rank of the group holds, and where in its part. */
  pieces(rank: number): readonly LocalPiece[];
  /** The ranks over which it is cut. */
  readonly group: Collective;
  /** The ranks that hold the same part as this one, if there are others. */
  readonly replicate?: Collective | undefined;
  /** `local` was written by an optimizer or a load: gathered copies are stale. */
  updated(): void;
  /** Frees the memory of all parameters that are managed together, where that is this manager's to do. */
  dispose?(): void;
  /** Whether `local` has values. */
  readonly materialized: boolean;
  /** Allocates `local` on a device and fills it with this rank's part of the initial values. */
  materialize(device: Device): Promise<void>;
}

/** One of the parameters that a flat one stands for; on every rank their `local`s adjoin in its `local`, in their order. */
export interface ParameterPart {
  /** Within the module that has the flat one. */
  readonly name: string;
  readonly parameter: Parameter;
}

/** Options of a parameter. */
export interface ParameterOptions {
  readonly dtype?: DType;
  readonly requiresGrad?: boolean;
}

/** A learned tensor. */
export class Parameter extends Tensor {
  /** Full name within the model, set when the model is put on a device or sharded. */
  name = "";
  /** Type of its values at rest: of `local`, `grad` and optimizer state. */
  readonly originalDType: DType;
  /** Where its values come from when it is put on a device: a file's reader may take the place of the module's own. */
  initializer: Initializer;
  /** Gradient of the gathered values, while it waits to be reduced. */
  unshardedGrad: Tensor | undefined;
  /** What is gathered in place of its values; set it before the parameter is sharded. */
  allGatherExtension: AllGatherExtension | undefined;
  /** Called when a backward pass has added this rank's part to `grad`; an optimizer may take its step here. Sharded parameters only. */
  postAccumulateGradHook: ((parameter: Parameter) => void | Promise<void>) | undefined;
  /** The parameters that it stands for, if it is a flat one: what is known of it is saved and loaded as theirs. */
  readonly parts: readonly ParameterPart[] | undefined = undefined;
  #manager: ParameterManager | undefined;

  constructor(shape: Shape, initializer: Initializer, options: ParameterOptions = {}) {
    checkShape(shape, "Making a parameter");
    super({ shape, dtype: options.dtype ?? "float32", requiresGrad: options.requiresGrad ?? true });
    this.initializer = initializer;
    this.originalDType = this.dtype;
  }

  /** Who cut it into shards, if anybody. */
  get manager(): ParameterManager | undefined {
    return this.#manager;
  }

  /** What this rank owns of it: its shard, or all of it. */
  get local(): Tensor {
    return this.#manager?.local ?? this;
  }

  /** The boxes of the parameter that `local` holds. */
  get pieces(): readonly LocalPiece[] {
    const manager = this.#manager;
    return (
      manager?.pieces(manager.group.rank) ?? [
        { offsets: this.shape.map(() => 0), sizes: this.shape, localOffset: 0 },
      ]
    );
  }

  /** Whether there are values behind `local`. */
  get materialized(): boolean {
    return this.#manager?.materialized ?? this.owned;
  }

  /** To be called by whoever writes to `local` (optimizers, loads): gathered copies of it are dropped. */
  updated(): void {
    this.#manager?.updated();
    this.allGatherExtension?.updated?.();
  }

  /** Puts it under a sharding version's management. Its own memory goes: values live in `manager.local` from now on. */
  manage(manager: ParameterManager): void {
    if (this.#manager !== undefined) {
      throw new StateError(
        `Parameter "${this.name}" is sharded already by unit "${this.#manager.unit}": shard inner modules first, each once`,
      );
    }
    this.#manager = manager;
  }

  /** Puts gathered values of a dtype behind it (taken over). For the sharding engine. */
  setGathered(device: Device, dtype: DType, storage: Storage, offset: number): void {
    this.replaceStorage(device, dtype, storage, offset);
  }

  /** Lets gathered values go. For the sharding engine. */
  dropGathered(device: Device): void {
    this.replaceStorage(device, this.originalDType, undefined, 0);
  }

  /** Allocates it (or this rank's part of it) on a device and fills it with its initial values. */
  async materialize(device: Device): Promise<void> {
    if (this.#manager !== undefined) return await this.#manager.materialize(device);
    const category: MemoryCategory = "parameter";
    const memory = device.allocate(this.shape, this.dtype, category);
    const [piece] = this.pieces;
    device.backend.write(memory.span, await this.initial(device.seed, piece!));
    this.replaceStorage(device, this.dtype, memory.storage.retain(), 0);
    memory.dispose();
  }

  /** Initial values of one box. The same for a seed and name, however the parameter is cut. */
  async initial(seed: number, box: Box): Promise<HostArray> {
    const dtype = this.originalDType;
    const out = newHostArray(dtype, numelOf(box.sizes));
    const key = streamKey(seed, "init", this.name);
    await this.initializer({ name: this.name, shape: this.shape, dtype, box, key, out });
    return out;
  }

  /** Lets its memory go, its gradient's and its shard's; of a sharded one that of its whole unit. It can be put on a device again. */
  override dispose(): void {
    super.dispose();
    this.unshardedGrad?.dispose();
    this.unshardedGrad = undefined;
    this.#manager?.dispose?.();
  }

  override forBackward(): Tensor {
    return this;
  }

  override releaseSaved(): void {}

  override accumulateGrad(contribution: Tensor): void {
    if (this.#manager === undefined) {
      super.accumulateGrad(contribution);
      return;
    }
    const sum =
      this.unshardedGrad === undefined ? contribution : addGradients(this.unshardedGrad, contribution);
    this.unshardedGrad = sum.exclusive ? sum : sum.device.copyOf(sum);
    if (this.unshardedGrad !== sum) sum.dispose();
    this.device.backend.relabel(this.unshardedGrad.storage.buffer, "gradient");
  }

  protected override describe(): string {
    return `Parameter "${this.name}" of shape ${showShape(this.shape)}`;
  }

  protected override missing(): string {
    if (this.#manager === undefined) {
      return `${this.describe()} has no values yet: call await model.to(device) first`;
    }
    return `${this.describe()} is sharded now: it can be read while its unit "${this.#manager.unit}" computes, through module.call(...), not module.forward(...)`;
  }
}

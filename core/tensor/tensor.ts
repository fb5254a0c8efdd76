/**
 * Tensor: a handle on device memory with a shape, a dtype and, perhaps, a place on the autograd tape.
 *
 * Lifetimes are explicit. The result of an operation lives until the backward pass that consumed it ends, or the scope
 * or module call in which it was made; `keep()` makes it outlive them until `dispose()` (or `using`). What a program
 * makes itself at top level (`device.tensor(...)`) lives until it is disposed.
 *
 * @module
 */
import type { Span } from "../contracts/backend.ts";
import { DTYPES, type DType, type HostArray } from "../contracts/dtype.ts";
import { ShapeError, StateError } from "../contracts/errors.ts";
import type { Device, Scope } from "./device.ts";
import { numelOf, type Shape, showShape } from "./shape.ts";
import type { Storage } from "./storage.ts";
import { addGradients, type BackwardOptions, dropNode, type GradNode, runBackward } from "./tape.ts";

/** What a tensor is made of. */
export interface TensorInit {
  readonly device?: Device | undefined;
  readonly shape: Shape;
  readonly dtype: DType;
  /** Taken over: the tensor is one of its holders. */
  readonly storage?: Storage | undefined;
  /** First element in the storage, in elements. */
  readonly offset?: number;
  readonly requiresGrad?: boolean;
}

/** A tensor. */
export class Tensor {
  readonly shape: Shape;
  readonly numel: number;
  requiresGrad: boolean;
  /** The gradient, once a backward pass has reached this leaf. Same shape and dtype. */
  grad: Tensor | undefined;
  /** How it was made, when it was made from something that requires a gradient. */
  gradNode: GradNode | undefined;
  /** The scope that will dispose it; absent when its holder must. */
  scope: Scope | undefined;
  #dtype: DType;
  #device: Device | undefined;
  #storage: Storage | undefined;
  #offset: number;

  constructor(init: TensorInit) {
    this.shape = init.shape;
    this.#dtype = init.dtype;
    this.numel = numelOf(init.shape);
    this.requiresGrad = init.requiresGrad ?? false;
    this.#device = init.device;
    this.#storage = init.storage;
    this.#offset = init.offset ?? 0;
  }

  /** Type of its elements. A sharded parameter's changes while mixed precision has it gathered in another one. */
  get dtype(): DType {
    return this.#dtype;
  }

  /** @throws StateError for a parameter that was not put on a device yet. */
  get device(): Device {
    if (this.#device === undefined) {
      throw new StateError(`${this.describe()} is not on a device yet: call await model.to(device) first`);
    }
    return this.#device;
  }

  /** Whether it is on a device (a parameter is not until its module was put on one). */
  get hasDevice(): boolean {
    return this.#device !== undefined;
  }

  /** Whether there is memory behind it now. */
  get owned(): boolean {
    return this.#storage !== undefined;
  }

  /** Whether nobody else holds its memory. */
  get exclusive(): boolean {
    return this.#storage?.exclusive ?? false;
  }

  /** Its elements on the device. @throws StateError when there is no memory behind it. */
  get span(): Span {
    return { buffer: this.storage.buffer, dtype: this.dtype, offset: this.#offset, length: this.numel };
  }

  /** @throws StateError when there is no memory behind it. */
  get storage(): Storage {
    if (this.#storage === undefined) throw new StateError(this.missing());
    return this.#storage;
  }

  /** First element in the storage. */
  get offset(): number {
    return this.#offset;
  }

  /** Bytes of its elements. */
  get byteLength(): number {
    return this.numel * DTYPES[this.dtype].bytes;
  }

  /** Puts other memory of a dtype behind the handle (taken over), or none. The old memory is let go. */
  protected replaceStorage(device: Device, dtype: DType, storage: Storage | undefined, offset: number): void {
    this.#storage?.release();
    this.#device = device;
    this.#dtype = dtype;
    this.#storage = storage;
    this.#offset = offset;
  }

  /** How messages call it. */
  protected describe(): string {
    return `A tensor of shape ${showShape(this.shape)}`;
  }

  /** The message for use without memory. */
  protected missing(): string {
    return `${this.describe()} was released: results live until their backward pass, scope or module call ends, call keep() to hold one longer`;
  }

  /** Another handle on the same elements, owned by the caller, off the tape. */
  alias(shape: Shape = this.shape, offset = 0): Tensor {
    const storage = this.storage.retain();
    return new Tensor({
      device: this.device,
      shape,
      dtype: this.dtype,
      storage,
      offset: this.#offset + offset,
    });
  }

  /** The same elements without history: no gradient flows through it. */
  detach(): Tensor {
    return this.device.adopt(this.alias());
  }

  /** Holds it until `dispose()`, whatever ends before. Returns itself. */
  keep(): this {
    this.scope?.delete(this);
    return this;
  }

  /** Lets its memory, its gradient and its place on the tape go. Disposing twice is harmless. */
  dispose(): void {
    this.grad?.dispose();
    this.grad = undefined;
    this.scope?.delete(this);
    this.#storage?.release();
    this.#storage = undefined;
    if (this.gradNode !== undefined) dropNode(this.gradNode);
    this.gradNode = undefined;
  }

  /** What the tape holds for the backward pass: an alias, so that this handle may end before. */
  forBackward(): Tensor {
    return this.alias();
  }

  /** The tape lets go of what `forBackward` gave it. */
  releaseSaved(): void {
    this.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** A host copy of the elements, row-major. */
  async data(): Promise<HostArray> {
    return await this.device.backend.read(this.span);
  }

  /** The value of a one-element tensor. @throws ShapeError for any other size. */
  async item(): Promise<number> {
    if (this.numel !== 1) {
      throw new ShapeError(
        `item() failed: a tensor of shape ${showShape(this.shape)} has ${this.numel} elements, not one`,
      );
    }
    return Number((await this.data())[0]);
  }

  /**
   * Adds gradients of this tensor to the `grad` of every leaf that it depends on, then frees what the pass consumed.
   *
   * @throws ShapeError when it has more than one element and no `gradient` is given.
   * @throws StateError when nothing behind it requires a gradient, or its tape was walked already.
   */
  backward(options: BackwardOptions = {}): Promise<void> {
    return runBackward(this, options);
  }

  /** Adds a contribution (taken over) to `grad`. */
  accumulateGrad(contribution: Tensor): void {
    const sum = this.grad === undefined ? contribution : addGradients(this.grad, contribution);
    this.grad = sum.exclusive ? sum : sum.device.copyOf(sum);
    if (this.grad !== sum) sum.dispose();
    this.device.backend.relabel(this.grad.storage.buffer, "gradient");
  }
}

/**
 * Device: a backend as one rank's program uses it, with that program's state: whether gradients are recorded, which
 * scope owns new tensors, which unit is computing, where random streams stand.
 *
 * The state hangs on the device, and every tensor knows its device, so that many ranks can run in one event loop
 * without seeing each other's.
 *
 * @module
 */
import type { Backend } from "../contracts/backend.ts";
import { DTYPES, type DType, type HostArray, newHostArray } from "../contracts/dtype.ts";
import { ShapeError, StateError } from "../contracts/errors.ts";
import type { MemoryCategory } from "../contracts/memory.ts";
import { randomNormal, randomUniform, streamKey } from "./random.ts";
import { checkShape, numelOf, type Shape, showShape } from "./shape.ts";
import { Storage } from "./storage.ts";
import {
  type BackwardFunction,
  type BackwardListener,
  type GradNode,
  type GradRegion,
  isNode,
} from "./tape.ts";
import { Tensor } from "./tensor.ts";

/** The tensors that end together. */
export class Scope {
  readonly tensors: Set<Tensor> = new Set();

  add(tensor: Tensor): void {
    this.tensors.add(tensor);
    tensor.scope = this;
  }

  delete(tensor: Tensor): void {
    this.tensors.delete(tensor);
    tensor.scope = undefined;
  }
}

/** Options of the tensor factories. */
export interface TensorOptions {
  /** float32 by default (int32 stays int32 when given as `Int32Array`, and so on). */
  readonly dtype?: DType;
  readonly requiresGrad?: boolean;
}

/** Options of a device. */
export interface DeviceOptions {
  /** 0 by default; give every rank of a job the same. */
  readonly seed?: number;
  /** 0 by default. */
  readonly rank?: number;
}

/** What `record` needs to put an operation on the tape. */
export interface RecordInit {
  readonly op: string;
  readonly inputs: readonly Tensor[];
  /** Tensors that `backward` will read; held until it ran. Absent ones keep their place. */
  readonly saved?: readonly (Tensor | undefined)[];
  readonly backward: BackwardFunction;
}

const ARRAY_DTYPES: readonly [new (n: number) => HostArray, DType][] = [
  [Float32Array, "float32"],
  [Float64Array, "float64"],
  [Float16Array, "float16"],
  [Int32Array, "int32"],
  [BigInt64Array, "int64"],
  [Uint8Array, "uint8"],
];

/** A backend and one program's state on it. */
export class Device {
  readonly backend: Backend;
  /** Seed of every random stream of this program. */
  seed: number;
  /** Tells streams apart that must differ between the ranks of a job with one seed: dropout's. */
  readonly rank: number;
  /** Whether operations are recorded. */
  gradEnabled = true;
  /**
   * The gradient with which backward passes will begin (a gradient scaler's factor), for operations that make gradients
   * ahead. Another one is right too, with less accuracy in 16 bits.
   */
  lossScale = 1;
  /** The unit whose forward is running, whose preparation the backward of new nodes needs. */
  region: GradRegion | undefined;
  /** Told of every backward pass. */
  readonly backwardListeners: Set<BackwardListener> = new Set();
  readonly #scopes: Scope[] = [new Scope()];
  #nodes = 0;
  #streams = 0;

  constructor(backend: Backend, options: DeviceOptions = {}) {
    this.backend = backend;
    this.seed = options.seed ?? 0;
    this.rank = options.rank ?? 0;
  }

  /** Uninitialised memory, owned by the caller, off the tape. */
  allocate(shape: Shape, dtype: DType, category: MemoryCategory = "activation"): Tensor {
    const buffer = this.backend.allocate(numelOf(shape) * DTYPES[dtype].bytes, category);
    return new Tensor({ device: this, shape, dtype, storage: new Storage(this.backend, buffer) });
  }

  /** Uninitialised memory for an operation's result, owned by the current scope. */
  result(shape: Shape, dtype: DType): Tensor {
    return this.adopt(this.allocate(shape, dtype));
  }

  /** Gives a tensor to the current scope. */
  adopt(tensor: Tensor): Tensor {
    this.#scopes.at(-1)!.add(tensor);
    return tensor;
  }

  /** A copy of the elements, owned by the caller, off the tape. */
  copyOf(source: Tensor, category: MemoryCategory = "activation"): Tensor {
    const out = this.allocate(source.shape, source.dtype, category);
    this.backend.kernels.copy(source.span, out.span, [
      { sizes: [source.numel], sourceOffset: 0, sourceStrides: [1], targetOffset: 0, targetStrides: [1] },
    ]);
    return out;
  }

  /** Puts `out` on the tape when gradients are recorded and an input wants one. Returns `out`. */
  record(out: Tensor, init: RecordInit): Tensor {
    if (!this.gradEnabled || !init.inputs.some((input) => input.requiresGrad)) return out;
    const inputs = init.inputs.map((input) => (input.requiresGrad ? (input.gradNode ?? input) : undefined));
    for (const edge of inputs) if (edge !== undefined && isNode(edge)) edge.holders++;
    const node: GradNode = {
      id: this.#nodes++,
      op: init.op,
      inputs,
      shape: out.shape,
      saved: (init.saved ?? []).map((tensor) => tensor?.forBackward()),
      backward: init.backward,
      region: this.region,
      done: false,
      holders: 1,
    };
    out.gradNode = node;
    out.requiresGrad = true;
    return out;
  }

  /**
   * A tensor from numbers (nested arrays give the shape) or a host array.
   *
   * At top level it lives until disposed; inside a scope or a module's forward until that ends.
   *
   * @throws ShapeError when nested arrays are ragged or a host array does not fill `shape`.
   */
  tensor(values: Values | HostArray, options: TensorOptions & { readonly shape?: Shape } = {}): Tensor {
    if (typeof values === "number" || Array.isArray(values)) {
      const { flat, shape } = flatten(values);
      return this.#create(shape, options.dtype ?? "float32", options, (out) => fillFrom(out, flat));
    }
    const array = values as HostArray;
    const dtype = options.dtype ?? ARRAY_DTYPES.find(([type]) => array instanceof type)?.[1];
    if (dtype === undefined) throw new ShapeError("tensor() failed: give a dtype for this kind of array");
    const shape = options.shape ?? [array.length];
    if (numelOf(shape) !== array.length) {
      throw new ShapeError(`tensor() failed: ${array.length} elements do not fill shape ${showShape(shape)}`);
    }
    if (array.constructor === newHostArray(dtype, 0).constructor) {
      const tensor = this.#register(shape, dtype, options);
      this.backend.write(tensor.span, array);
      return tensor;
    }
    return this.#create(shape, dtype, options, (out) => fillFrom(out, array));
  }

  /** A tensor whose every element is `value`. */
  full(shape: Shape, value: number, options: TensorOptions = {}): Tensor {
    const tensor = this.#register(shape, options.dtype ?? "float32", options);
    this.backend.kernels.fill(tensor.span, value);
    return tensor;
  }

  /** Zeros. */
  zeros(shape: Shape, options: TensorOptions = {}): Tensor {
    return this.full(shape, 0, options);
  }

  /** Ones. */
  ones(shape: Shape, options: TensorOptions = {}): Tensor {
    return this.full(shape, 1, options);
  }

  /** `0, 1, ... n-1`. */
  arange(n: number, options: TensorOptions = {}): Tensor {
    return this.#create([n], options.dtype ?? "float32", options, (out) => {
      for (let i = 0; i < n; i++) out[i] = out instanceof BigInt64Array ? BigInt(i) : i;
    });
  }

  /** Standard normal values; each call draws the next stream of the device's seed. */
  randn(shape: Shape, options: TensorOptions = {}): Tensor {
    return this.#random(shape, options, randomNormal);
  }

  /** Uniform values in [0, 1); each call draws the next stream of the device's seed. */
  rand(shape: Shape, options: TensorOptions = {}): Tensor {
    return this.#random(shape, options, randomUniform);
  }

  /** Runs `body` and then disposes every tensor made in it, save those it returns (alone, in arrays or plain objects) or keeps. */
  async scope<T>(body: () => T | Promise<T>): Promise<T> {
    const scope = new Scope();
    this.#scopes.push(scope);
    let result: T | undefined;
    try {
      result = await body();
      return result;
    } finally {
      this.#leave(scope, result);
    }
  }

  /** Runs `body` without recording. */
  async noGrad<T>(body: () => T | Promise<T>): Promise<T> {
    const before = this.gradEnabled;
    this.gradEnabled = false;
    try {
      return await body();
    } finally {
      this.gradEnabled = before;
    }
  }

  /** The next random stream: a number that differs at every call and is the same in every run. */
  nextStream(): number {
    return this.#streams++;
  }

  /** Position of the random streams, to save and restore. */
  get streamPosition(): number {
    return this.#streams;
  }

  set streamPosition(position: number) {
    this.#streams = position;
  }

  /** Disposes the current scope's results whose tape was walked or that have none; `root` stays until the next pass. */
  releaseFinished(root: Tensor): void {
    for (const tensor of [...this.#scopes.at(-1)!.tensors]) {
      if (tensor !== root && (tensor.gradNode === undefined || tensor.gradNode.done)) tensor.dispose();
    }
  }

  #leave(scope: Scope, result: unknown): void {
    if (this.#scopes.pop() !== scope) {
      throw new StateError(
        "Cannot end a scope: another one is open on this device, calls on one device must not overlap",
      );
    }
    const parent = this.#scopes.at(-1)!;
    for (const tensor of tensorsIn(result)) {
      if (tensor.scope === scope) {
        scope.delete(tensor);
        parent.add(tensor);
      }
    }
    for (const tensor of [...scope.tensors]) tensor.dispose();
  }

  #register(shape: Shape, dtype: DType, options: TensorOptions): Tensor {
    checkShape(shape, "Making a tensor");
    if (options.requiresGrad === true && !DTYPES[dtype].floating) {
      throw new ShapeError(`Making a tensor failed: dtype "${dtype}" cannot require a gradient`);
    }
    const tensor = this.allocate(shape, dtype);
    tensor.requiresGrad = options.requiresGrad ?? false;
    if (this.#scopes.length > 1) this.adopt(tensor);
    return tensor;
  }

  /** A tensor of numbers that `fill` writes; bfloat16 has no host form that holds numbers, so that the device converts. */
  #create(shape: Shape, dtype: DType, options: TensorOptions, fill: (out: HostArray) => void): Tensor {
    const tensor = this.#register(shape, dtype, options);
    const host = newHostArray(dtype === "bfloat16" ? "float32" : dtype, tensor.numel);
    fill(host);
    if (dtype === "bfloat16") {
      const exact = this.allocate(shape, "float32");
      this.backend.write(exact.span, host);
      this.backend.kernels.cast(exact.span, tensor.span);
      exact.dispose();
    } else this.backend.write(tensor.span, host);
    return tensor;
  }

  #random(shape: Shape, options: TensorOptions, draw: typeof randomNormal): Tensor {
    const key = streamKey(this.seed, "tensor", this.nextStream());
    return this.#create(shape, options.dtype ?? "float32", options, (out) => {
      if (out instanceof Float32Array || out instanceof Float64Array) draw(key, 0, out);
      else
        throw new ShapeError(
          `Random values failed: dtype "${options.dtype}", allowed are "float32" and "float64"`,
        );
    });
  }
}

/** A number or nested arrays of numbers. */
export type Values = number | readonly Values[];

function flatten(values: Values): { flat: number[]; shape: number[] } {
  const shape: number[] = [];
  for (let level = values; Array.isArray(level); level = level[0] as Values) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  const flat: number[] = [];
  const walk = (value: Values, depth: number): void => {
    if (typeof value === "number") {
      if (depth !== shape.length) throw new ShapeError("tensor() failed: nested arrays are ragged");
      flat.push(value);
      return;
    }
    if (value.length !== shape[depth]) throw new ShapeError("tensor() failed: nested arrays are ragged");
    for (const item of value) walk(item, depth + 1);
  };
  walk(values, 0);
  return { flat, shape };
}

function fillFrom(out: HostArray, values: ArrayLike<number | bigint>): void {
  if (out instanceof BigInt64Array) for (let i = 0; i < out.length; i++) out[i] = BigInt(values[i]!);
  else for (let i = 0; i < out.length; i++) out[i] = Number(values[i]);
}

/** The tensors in a value: itself, or inside arrays and plain objects. */
function* tensorsIn(value: unknown): Generator<Tensor> {
  if (value instanceof Tensor) yield value;
  else if (Array.isArray(value)) for (const item of value) yield* tensorsIn(item);
  else if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) yield* tensorsIn(item);
  }
}

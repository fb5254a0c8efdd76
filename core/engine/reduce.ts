/**
 * Reducing: from the whole gradients of a unit on every rank to each rank's part of their mean.
 *
 * Reduce-scatter in the shard group, then all-reduce over replicas. Only parameters that have a gradient take part.
 * Memory is taken and given back where the program starts and finishes a reduction, whenever its messages arrive.
 * Follows FSDP2's `foreach_reduce` and FSDPParamGroup.post_backward (torch/distributed/fsdp/_fully_shard).
 *
 * @module
 */
import type { Work } from "../contracts/collective.ts";
import type { DType } from "../contracts/dtype.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { allReduce } from "./all-reduce.ts";
import { addInto, converted, divideBy, downloaded } from "./copies.ts";
import type { DivisionPlan, GradientDivision } from "./gradient-division.ts";
import { abandon } from "./rank-groups.ts";
import { type ReduceLayout, reduceLayout } from "./reduce-layout.ts";
import { reduceScatter } from "./transfer.ts";
import type { UnitEvent } from "./unit-events.ts";
import type { UnitShards } from "./unit-shards.ts";

/** Called with the gradients that a reduce-scatter left on this rank; may replace them in place. */
export type AllReduceHook = (gradients: Tensor) => void | Promise<void>;

/** What a reducer is made of. */
export interface ReducerInit {
  readonly shards: UnitShards;
  /** What gradients are reduced, and while they wait for it added up, in; `undefined`: what they are computed in. */
  readonly reduceDtype: DType | undefined;
  readonly division: GradientDivision;
  readonly keepLowPrecisionGrads: boolean;
  readonly notify: (event: Omit<Extract<UnitEvent, { readonly numel: number }>, "unit">) => void;
}

/** A reduction under way. */
interface Reduction {
  readonly layout: ReduceLayout;
  readonly plan: DivisionPlan;
  /** Done with when it has arrived. */
  readonly spent: readonly Tensor[];
  readonly output: Tensor;
  readonly arrived: Promise<void>;
  /** Whether replicas have been added, so that it is complete. */
  readonly complete: boolean;
}

/** Reduces a unit's gradients. */
export class Reducer {
  /** Whether a reduction includes the replicas, or stays on this rank to be added to the next one. */
  requiresAllReduce = true;
  /** What the sum is divided by; `undefined`: the number of ranks. */
  divideFactor: number | undefined;
  /** Whether only sums are asked of collectives. */
  forceSum = false;
  allReduceHook: AllReduceHook | undefined;
  readonly #init: ReducerInit;
  readonly #layouts: Map<string, ReduceLayout> = new Map();
  /** Whole gradients that wait in another dtype than they are computed in, by parameter. */
  readonly #waiting: Map<number, Tensor> = new Map();
  /** What earlier reductions left that the replicas were not added to. */
  #partial: { readonly layout: ReduceLayout; readonly output: Tensor } | undefined;
  #reduction: Reduction | undefined;

  constructor(init: ReducerInit) {
    this.#init = init;
  }

  /** Keeps the gradients of a backward pass for a later one: in the dtype of the reduction, if it has one of its own. */
  accumulate(): void {
    for (const i of this.#parameters.keys()) this.#fold(i);
  }

  /** Whether there is anything to reduce. */
  get pending(): boolean {
    return this.#partial !== undefined || this.#members().length > 0;
  }

  /** When the reduction under way has arrived; `undefined` when there is none. */
  get arrived(): Promise<void> | undefined {
    return this.#reduction?.arrived;
  }

  /**
   * Starts to reduce what is there. On one rank it is complete at once.
   *
   * @param before resolves when the reductions that were started earlier have arrived.
   */
  async start(before: Promise<void>): Promise<void> {
    const { group, replicate } = this.#init.shards;
    for (const i of this.#waiting.keys()) this.#fold(i);
    const replicas = replicate?.size ?? 1;
    if (group.size === 1 && replicas === 1 && this.allReduceHook === undefined) return await this.#takeAll();

    const layout = this.#layoutOf(this.#members());
    const dtype = this.#dtypeOf(layout.members);
    const plan = this.#plan(dtype);
    const input = this.#collect(layout, dtype);
    divideBy(input, plan.predivide);
    const output = group.size > 1 ? input.device.allocate([layout.numel], dtype, "gradient") : input;
    const partial = this.#takePartial(layout, dtype);
    const complete = replicas === 1 || this.requiresAllReduce;
    let scattered: Work | undefined;
    if (group.size > 1) {
      this.#notify("reduceScatter", input, group.size, plan.reduceScatter);
      scattered = reduceScatter(group, output, input, plan.reduceScatter);
    }
    const arrive = async (): Promise<void> => {
      await scattered?.wait();
      // Replicas must be asked in one order, whoever is ready first.
      await before;
      await this.allReduceHook?.(output);
      if (partial !== undefined) addInto(output, partial);
      if (replicate === undefined || replicas === 1 || !complete) return;
      this.#notify("allReduce", output, replicas, plan.allReduce);
      await allReduce(replicate, output, plan.allReduce).wait();
    };
    const arrived = arrive().catch((error: unknown) => {
      // Replicas would wait for this one.
      if (replicas > 1) abandon({ group: replicate! }, error);
      throw error;
    });
    // Whoever finishes it is told; a pass that failed elsewhere finishes nothing.
    arrived.catch(() => {});
    const spent = [...(input === output ? [] : [input]), ...(partial === undefined ? [] : [partial])];
    this.#reduction = { layout, plan, spent, output, arrived, complete };
  }

  /** Ends a started reduction: `grad` of every parameter that took part holds this rank's part. */
  async finish(): Promise<void> {
    if (this.#reduction === undefined) return;
    const { layout, plan, spent, output, arrived, complete } = this.#reduction;
    await arrived;
    this.#reduction = undefined;
    for (const tensor of spent) tensor.dispose();
    if (!complete) {
      this.#partial = { layout, output };
      return;
    }
    divideBy(output, plan.postdivide);
    const { shards } = this.#init;
    const home = await downloaded(output, shards.home, "gradient");
    const dtypes = layout.members.map((i) => this.#gradDtype(i, home.dtype));
    const same = dtypes.every((dtype) => dtype === dtypes[0]);
    const flat = converted(home, same ? (dtypes[0] ?? home.dtype) : home.dtype, "gradient");
    home.dispose();
    const parts = layout.members.map((i, m) => {
      using part = flat.alias(shards.local(i).shape, layout.offsets[m]!);
      return converted(part, dtypes[m]!, "gradient");
    });
    flat.dispose();
    for (const [m, i] of layout.members.entries()) await this.#addGrad(i, parts[m]!);
  }

  /** Drops everything that waits or is under way; memory that messages still use goes when they have arrived. */
  reset(): void {
    for (const parameter of this.#parameters) {
      parameter.unshardedGrad?.dispose();
      parameter.unshardedGrad = undefined;
    }
    for (const gradient of this.#waiting.values()) gradient.dispose();
    this.#waiting.clear();
    this.#partial?.output.dispose();
    this.#partial = undefined;
    const reduction = this.#reduction;
    this.#reduction = undefined;
    const free = (): void => {
      for (const tensor of reduction?.spent ?? []) tensor.dispose();
      reduction?.output.dispose();
    };
    // A device that was disposed meanwhile has taken its memory along.
    reduction?.arrived.then(free, free).catch(() => {});
  }

  get #parameters(): readonly Parameter[] {
    return this.#init.shards.parameters;
  }

  /** Moves a parameter's gradient to the sum that waits in the dtype of the reduction, where that is another one. */
  #fold(index: number): void {
    const parameter = this.#parameters[index]!;
    const gradient = parameter.unshardedGrad;
    const { reduceDtype } = this.#init;
    if (gradient === undefined || reduceDtype === undefined || gradient.dtype === reduceDtype) return;
    parameter.unshardedGrad = undefined;
    const term = converted(gradient, reduceDtype, "gradient");
    gradient.dispose();
    const sum = this.#waiting.get(index);
    if (sum === undefined) this.#waiting.set(index, term);
    else {
      addInto(sum, term);
      term.dispose();
    }
  }

  /** Indices of the parameters that have something to reduce. */
  #members(): number[] {
    const earlier = this.#partial?.layout.members ?? [];
    return [...this.#parameters.keys()].filter(
      (i) => this.#parameters[i]!.unshardedGrad !== undefined || this.#waiting.has(i) || earlier.includes(i),
    );
  }

  #layoutOf(members: readonly number[]): ReduceLayout {
    const key = members.join(" ");
    const layout = this.#layouts.get(key) ?? reduceLayout(this.#init.shards, members);
    this.#layouts.set(key, layout);
    return layout;
  }

  /** The one dtype in which the members are reduced: theirs, or, when they differ, one that holds them all. */
  #dtypeOf(members: readonly number[]): DType {
    if (this.#init.reduceDtype !== undefined) return this.#init.reduceDtype;
    const dtypes = members.flatMap((i) => this.#parameters[i]!.unshardedGrad?.dtype ?? []);
    const [first] = dtypes;
    if (first === undefined) return this.#partial?.output.dtype ?? "float32";
    if (dtypes.every((dtype) => dtype === first)) return first;
    return dtypes.includes("float64") ? "float64" : "float32";
  }

  #plan(dtype: DType): DivisionPlan {
    const { group, replicate } = this.#init.shards;
    return this.#init.division({
      dtype,
      shardSize: group.size,
      replicateSize: replicate?.size ?? 1,
      factor: this.divideFactor,
      forceSum: this.forceSum,
    });
  }

  /** Writes the members' whole gradients to the input of a reduction, and lets them go. */
  #collect(layout: ReduceLayout, dtype: DType): Tensor {
    const { group, compute } = this.#init.shards;
    const { kernels } = compute.backend;
    const category = group.size > 1 ? "communication" : "gradient";
    const input = compute.allocate([group.size * layout.numel], dtype, category);
    const gradients = layout.members.map((i) => this.#take(i));
    if (layout.padded || gradients.includes(undefined)) kernels.fill(input.span, 0);
    for (const [m, gradient] of gradients.entries()) {
      if (gradient === undefined) continue;
      using source = converted(gradient, dtype, "gradient");
      gradient.dispose();
      kernels.copy(source.span, input.span, layout.boxes[m]!);
    }
    return input;
  }

  /** A parameter's whole gradient, taken from it. */
  #take(index: number): Tensor | undefined {
    const parameter = this.#parameters[index]!;
    const gradient = this.#waiting.get(index) ?? parameter.unshardedGrad;
    this.#waiting.delete(index);
    if (gradient === parameter.unshardedGrad) parameter.unshardedGrad = undefined;
    return gradient;
  }

  /** What earlier reductions left, in the layout and dtype of this one. */
  #takePartial(layout: ReduceLayout, dtype: DType): Tensor | undefined {
    const partial = this.#partial;
    this.#partial = undefined;
    if (partial === undefined) return undefined;
    using output = partial.output;
    if (partial.layout === layout) return converted(output, dtype, "gradient");
    const { shards } = this.#init;
    const sum = output.device.allocate([layout.numel], dtype, "gradient");
    sum.device.backend.kernels.fill(sum.span, 0);
    for (const [m, i] of partial.layout.members.entries()) {
      const { shape } = shards.local(i);
      using before = output.alias(shape, partial.layout.offsets[m]!);
      using after = sum.alias(shape, layout.offsets[layout.members.indexOf(i)]!);
      using term = converted(before, dtype, "gradient");
      addInto(after, term);
    }
    return sum;
  }

  /** One rank alone: whole gradients are its parts. */
  async #takeAll(): Promise<void> {
    const { shards } = this.#init;
    for (const i of this.#members()) {
      const gradient = this.#take(i)!;
      const { predivide, postdivide } = this.#plan(gradient.dtype);
      divideBy(gradient, predivide * postdivide);
      const home = await downloaded(gradient, shards.home, "gradient");
      const part = converted(home, this.#gradDtype(i, home.dtype), "gradient", shards.local(i).shape);
      home.dispose();
      await this.#addGrad(i, part);
    }
  }

  /** What a parameter's gradient is kept in. */
  #gradDtype(index: number, reduced: DType): DType {
    return this.#init.keepLowPrecisionGrads ? reduced : this.#parameters[index]!.originalDType;
  }

  /** Adds a part (taken over) to a parameter's gradient. The parts of a unit may share memory, so it adds in place. */
  async #addGrad(index: number, part: Tensor): Promise<void> {
    const parameter = this.#parameters[index]!;
    if (parameter.grad === undefined) parameter.grad = part;
    else {
      addInto(parameter.grad, part);
      part.dispose();
    }
    await parameter.postAccumulateGradHook?.(parameter);
  }

  #notify(
    kind: "reduceScatter" | "allReduce",
    { numel, dtype }: Tensor,
    ranks: number,
    op: "sum" | "avg",
  ): void {
    this.#init.notify({ kind, numel, dtype, ranks, op });
  }
}

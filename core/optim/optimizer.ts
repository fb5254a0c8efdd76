/**
 * Optimizer: what all optimizers share, after `torch.optim.Optimizer`: parameter groups with values of their own, state
 * by parameter, and what a checkpoint needs of both.
 *
 * It works on `parameter.local` and `parameter.grad` alone, element by element, and so neither knows nor cares whether
 * parameters are sharded. Parameters without a gradient are skipped. State is allocated at a parameter's first update, so
 * that the model may be sharded before or after the optimizer is made. What follows each other in memory, as a unit's
 * shards do, is updated by one kernel call.
 *
 * @module
 */
import * as v from "valibot";
import type { Span } from "../contracts/backend.ts";
import type { Value } from "../contracts/checkpointer.ts";
import { ConfigError, ShapeError, StateError } from "../contracts/errors.ts";
import type { Kernels } from "../contracts/kernels.ts";
import type { Parameter } from "../nn/parameter.ts";
import { sameShape, showShape } from "../tensor/shape.ts";
import { adjoins, union } from "../tensor/spans.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Values that every group has. */
export interface GroupValues {
  /** Learning rate. */
  lr: number;
}

/** Parameters and the values they are updated with, which may be changed between steps. */
export type ParameterGroup<V extends GroupValues> = V & { readonly params: readonly Parameter[] };

/** What an optimizer is made for: parameters, or groups of them with values that differ from the optimizer's. */
export type OptimizerParams<V extends GroupValues> =
  | readonly Parameter[]
  | readonly (Readonly<Partial<V>> & { readonly params: readonly Parameter[] })[];

/** What an optimizer remembers of one parameter. */
export interface ParameterState {
  /** Updates so far. A checkpoint that is loaded sets it. */
  step: number;
  /** Tensors of the shape of `parameter.local`, under PyTorch's names, for example `exp_avg`. */
  readonly tensors: readonly StateTensor[];
}

/** One tensor that an optimizer keeps of a parameter. */
interface StateTensor {
  readonly key: string;
  readonly tensor: Tensor;
}

/** One update in place: of a parameter, or of several that follow each other in memory, and whose gradients and state do too. */
export interface OptimizerUpdate {
  readonly parameter: Span;
  /** As long as `parameter`, as all of `state`. */
  readonly gradient: Span;
  /** In the order of `stateKeys`. */
  readonly state: readonly Span[];
  /** 1 at the first update. */
  readonly step: number;
}

/** Options of `zeroGrad`. */
export interface ZeroGradOptions {
  /** Free gradients; the default. Otherwise they stay and become zeros. */
  readonly setToNone?: boolean;
}

/** Base of all optimizers. */
export abstract class Optimizer<V extends GroupValues = GroupValues> {
  readonly groups: readonly ParameterGroup<V>[];
  readonly #schema: v.GenericSchema<unknown, V>;
  readonly #states: Map<Parameter, ParameterState & { tensors: StateTensor[] }> = new Map();

  /**
   * @param params Parameters or groups of them.
   * @param values The values of groups that say nothing else.
   * @param schema Checks the values of one group.
   * @throws ConfigError for values that the schema refuses, no parameters, or one parameter twice.
   */
  protected constructor(params: OptimizerParams<V>, values: object, schema: v.GenericSchema<unknown, V>) {
    this.#schema = schema;
    this.groups = grouped(params).map(({ params: members, ...own }, i) => {
      const checked = this.#checked(
        { ...values, ...own },
        `Making ${this.constructor.name} failed: group ${i}`,
      );
      return { ...checked, params: members };
    });
    const all = this.groups.flatMap((group) => group.params);
    if (all.length === 0)
      throw new ConfigError(`Making ${this.constructor.name} failed: no parameters given`);
    const seen = new Set<Parameter>();
    const twice = all.find((parameter) => seen.size === seen.add(parameter).size);
    if (twice !== undefined) {
      throw new ConfigError(
        `Making ${this.constructor.name} failed: parameter "${twice.name}" of shape ${showShape(twice.shape)} was given twice`,
      );
    }
  }

  /** Names of the state tensors that a parameter of this group has. */
  protected abstract stateKeys(group: V): readonly string[];

  /** Makes one update, on the backend of its spans. */
  protected abstract update(kernels: Kernels, update: OptimizerUpdate, group: V): void;

  /** Updates every parameter that has a gradient. @throws ShapeError or StateError when gradient or state do not fit it. */
  step(): void {
    for (const group of this.groups) {
      const members = group.params.filter((parameter) => parameter.grad !== undefined);
      for (const { name, local, grad } of members) {
        if (grad!.numel === local.numel && grad!.dtype === local.dtype) continue;
        throw new ShapeError(
          `step() failed: parameter "${name}" holds ${local.dtype} ${showShape(local.shape)}, its gradient ${grad!.dtype} ${showShape(grad!.shape)}`,
        );
      }
      this.#allocate(members, group);
      const keys = this.stateKeys(group);
      for (const { kernels, ...update } of joinedUpdates(
        members.map((parameter) => this.#next(parameter, keys)),
      )) {
        this.update(kernels, update, group);
      }
      for (const parameter of members) parameter.updated();
    }
  }

  /** Frees the gradients, so that their memory serves the next forward pass; or zeroes them. */
  zeroGrad(options: ZeroGradOptions = {}): void {
    for (const { grad, parameter } of this.#gradients()) {
      if (options.setToNone === false) grad.device.backend.kernels.fill(grad.span, 0);
      else {
        grad.dispose();
        parameter.grad = undefined;
      }
    }
  }

  /** What is remembered of a parameter; nothing before its first update. */
  state(parameter: Parameter): ParameterState | undefined {
    return this.#states.get(parameter);
  }

  /** Allocates zeroed state for every learnable parameter that has none, for a checkpoint to be loaded into. */
  initState(): void {
    for (const group of this.groups) {
      this.#allocate(
        group.params.filter((parameter) => parameter.requiresGrad),
        group,
      );
    }
  }

  /** Every group's values, in order, for a checkpoint. */
  groupValues(): Readonly<Record<string, Value>>[] {
    return this.groups.map(({ params: _, ...values }) => values as unknown as Record<string, Value>);
  }

  /** Takes over values that `groupValues` gave. @throws ConfigError when they are not as many, or out of range. */
  loadGroupValues(values: unknown): void {
    if (!Array.isArray(values) || values.length !== this.groups.length) {
      const given = Array.isArray(values) ? `${values.length} groups` : typeof values;
      throw new ConfigError(
        `Loading ${this.constructor.name} failed: ${given} given, the optimizer has ${this.groups.length} groups`,
      );
    }
    const checked = values.map((group, i) =>
      this.#checked(group, `Loading ${this.constructor.name} failed: group ${i}`),
    );
    for (const [i, group] of this.groups.entries()) Object.assign(group, checked[i]);
  }

  /** Frees all state. */
  dispose(): void {
    for (const { tensors } of this.#states.values()) for (const { tensor } of tensors) tensor.dispose();
    this.#states.clear();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  *#gradients(): Generator<{ parameter: Parameter; grad: Tensor }> {
    for (const group of this.groups) {
      for (const parameter of group.params) {
        if (parameter.grad !== undefined) yield { parameter, grad: parameter.grad };
      }
    }
  }

  /** Counts a parameter's next update. */
  #next(parameter: Parameter, keys: readonly string[]): OptimizerUpdate & { readonly kernels: Kernels } {
    const { local, grad } = parameter;
    const state = this.#states.get(parameter)!;
    state.step++;
    return {
      kernels: local.device.backend.kernels,
      parameter: local.span,
      gradient: grad!.span,
      state: keys.map((key) => state.tensors.find((entry) => entry.key === key)!.tensor.span),
      step: state.step,
    };
  }

  /** Gives zeroed state to those that lack it; parameters that follow each other in memory get state that does. */
  #allocate(parameters: readonly Parameter[], group: V): void {
    for (const parameter of parameters) {
      if (!this.#states.has(parameter)) this.#states.set(parameter, { step: 0, tensors: [] });
    }
    for (const key of this.stateKeys(group)) {
      const lacking = parameters.filter((parameter) => !this.#has(parameter, key));
      for (const run of runsOf(lacking)) {
        const { device, dtype } = run[0]!.local;
        const numel = run.reduce((sum, { local }) => sum + local.numel, 0);
        using flat = device.allocate([numel], dtype, "optimizer");
        device.backend.kernels.fill(flat.span, 0);
        let begin = 0;
        for (const parameter of run) {
          const tensor = flat.alias(parameter.local.shape, begin);
          begin += tensor.numel;
          this.#states.get(parameter)!.tensors.push({ key, tensor });
        }
      }
    }
  }

  /** Whether a parameter has a state tensor. @throws StateError when that has another shape. */
  #has(parameter: Parameter, key: string): boolean {
    const { local } = parameter;
    const known = this.#states.get(parameter)!.tensors.find((entry) => entry.key === key)?.tensor;
    if (known === undefined || sameShape(known.shape, local.shape)) return known !== undefined;
    throw new StateError(
      `step() failed: "${key}" of parameter "${parameter.name}" has shape ${showShape(known.shape)}, the parameter now ${showShape(local.shape)}, shard the model before the first step`,
    );
  }

  #checked(values: unknown, what: string): V {
    const result = v.safeParse(this.#schema, values);
    if (result.success) return result.output;
    const [issue] = result.issues;
    const path = v.getDotPath(issue);
    throw new ConfigError(`${what}${path === null ? "" : `, option "${path}"`}: ${issue.message}`);
  }
}

type Updates = (OptimizerUpdate & { readonly kernels: Kernels })[];

/** The same updates in as few calls as memory allows. */
function joinedUpdates(updates: Readonly<Updates>): Updates {
  const runs: Updates = [];
  for (const update of updates) {
    const last = runs.at(-1);
    const follows =
      last?.step === update.step &&
      adjoins(last.parameter, update.parameter) &&
      adjoins(last.gradient, update.gradient) &&
      last.state.every((span, i) => adjoins(span, update.state[i]!));
    if (last === undefined || !follows) runs.push(update);
    else {
      runs[runs.length - 1] = {
        ...last,
        parameter: union(last.parameter, update.parameter),
        gradient: union(last.gradient, update.gradient),
        state: last.state.map((span, i) => union(span, update.state[i]!)),
      };
    }
  }
  return runs;
}

/** Parameters by runs that follow each other in memory. */
function runsOf(parameters: readonly Parameter[]): Parameter[][] {
  const runs: Parameter[][] = [];
  for (const parameter of parameters) {
    const last = runs.at(-1)?.at(-1);
    if (last !== undefined && adjoins(last.local.span, parameter.local.span)) runs.at(-1)!.push(parameter);
    else runs.push([parameter]);
  }
  return runs;
}

type GroupInput<V extends GroupValues> = Readonly<Partial<V>> & { readonly params: readonly Parameter[] };

function grouped<V extends GroupValues>(params: OptimizerParams<V>): readonly GroupInput<V>[] {
  const isGroups = (given: OptimizerParams<V>): given is readonly GroupInput<V>[] =>
    given.length > 0 && "params" in given[0]!;
  return isGroups(params) ? params : [{ params: params as readonly Parameter[] } as GroupInput<V>];
}

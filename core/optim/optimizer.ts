/**
 * Optimizer: what all optimizers share, after `torch.optim.Optimizer`: parameter groups with values of their own, state
 * by parameter, and what a checkpoint needs of both.
 *
 * It works on `parameter.local` and `parameter.grad` alone, element by element, and so neither knows nor cares whether
 * parameters are sharded. Parameters without a gradient are skipped. State is allocated at a
 * parameter's first update, so that the model may be sharded before or after the optimizer is made.
 *
 * @module
 */
import * as v from "valibot";
import type { Value } from "../contracts/checkpointer.ts";
import { ConfigError, ShapeError, StateError } from "../contracts/errors.ts";
import type { Parameter } from "../nn/parameter.ts";
import { sameShape, showShape } from "../tensor/shape.ts";
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

  /** Updates one parameter in place; `state.step` counts this update already. */
  protected abstract update(local: Tensor, grad: Tensor, state: ParameterState, group: V): void;

  /** Updates every parameter that has a gradient. @throws ShapeError or StateError when gradient or state do not fit it. */
  step(): void {
    for (const group of this.groups) {
      for (const parameter of group.params) {
        const { local, grad } = parameter;
        if (grad === undefined) continue;
        if (grad.numel !== local.numel || grad.dtype !== local.dtype) {
          throw new ShapeError(
            `step() failed: parameter "${parameter.name}" holds ${local.dtype} ${showShape(local.shape)}, its gradient ${grad.dtype} ${showShape(grad.shape)}`,
          );
        }
        const state = this.#stateFor(parameter, group);
        state.step++;
        this.update(local, grad, state, group);
        parameter.updated();
      }
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
      for (const parameter of group.params) {
        if (parameter.requiresGrad) this.#stateFor(parameter, group);
      }
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

  #stateFor(parameter: Parameter, group: V): ParameterState {
    const { local } = parameter;
    const state = this.#states.get(parameter) ?? { step: 0, tensors: [] };
    this.#states.set(parameter, state);
    for (const key of this.stateKeys(group)) {
      const known = state.tensors.find((entry) => entry.key === key)?.tensor;
      if (known === undefined) {
        const tensor = local.device.allocate(local.shape, local.dtype, "optimizer");
        local.device.backend.kernels.fill(tensor.span, 0);
        state.tensors.push({ key, tensor });
      } else if (!sameShape(known.shape, local.shape)) {
        throw new StateError(
          `step() failed: "${key}" of parameter "${parameter.name}" has shape ${showShape(known.shape)}, the parameter now ${showShape(local.shape)}, shard the model before the first step`,
        );
      }
    }
    return state;
  }

  #checked(values: unknown, what: string): V {
    const result = v.safeParse(this.#schema, values);
    if (result.success) return result.output;
    const [issue] = result.issues;
    const path = v.getDotPath(issue);
    throw new ConfigError(`${what}${path === null ? "" : `, option "${path}"`}: ${issue.message}`);
  }
}

type GroupInput<V extends GroupValues> = Readonly<Partial<V>> & { readonly params: readonly Parameter[] };

function grouped<V extends GroupValues>(params: OptimizerParams<V>): readonly GroupInput<V>[] {
  const isGroups = (given: OptimizerParams<V>): given is readonly GroupInput<V>[] =>
    given.length > 0 && "params" in given[0]!;
  return isGroups(params) ? params : [{ params: params as readonly Parameter[] } as GroupInput<V>];
}

/**
 * LoRA: a frozen model learns by small factors beside its linear layers (Hu et al., "LoRA: Low-Rank Adaptation of Large
 * Language Models", 2021), named as PEFT names them.
 *
 * A layer keeps its class, weight and name, and gets two children: it computes `f(layer(x) + scale * B(A(x)))`. The frozen
 * weights keep their dtype and have neither gradients nor optimizer state; sharded, they are gathered and never reduced.
 *
 * @module
 */

import { ConfigError, StateError } from "../../core/contracts/errors.ts";
import type { MatmulActivation } from "../../core/contracts/kernels.ts";
import { type AnyModule, Conv1D, constant, Linear, type Parameter } from "../../core/nn/mod.ts";
import { add, gelu, mul, relu, silu } from "../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";

/** Options of `addLora`. */
export interface LoraOptions {
  /** Which linear layers: the last parts of their names, `["c_attn", "mlp.c_fc"]`. */
  readonly targetModules: readonly string[];
  /** Rows of A, columns of B. Default 8. */
  readonly rank?: number;
  /** What the factors add is scaled by alpha / rank. Default 8. */
  readonly alpha?: number;
}

const ACTIVATIONS: Readonly<Record<MatmulActivation, (x: Tensor) => Tensor>> = {
  relu,
  gelu,
  silu,
  geluTanh: (x) => gelu(x, "tanh"),
};

/** The factors of adapted layers. */
const adapters = new WeakMap<AnyModule, readonly Linear[]>();

/**
 * Freezes a model and gives the named `Linear` and `Conv1D` layers factors that learn: `<layer>.lora_A.weight`
 * [rank, in], drawn like any linear layer's weight, and `<layer>.lora_B.weight` [out, rank], zeros, so that the model
 * computes at first what it did. Call it before sharding, and give the optimizer `loraParameters(model)`.
 *
 * @returns the model.
 * @throws ConfigError for a rank or alpha that is not positive, or a target that names no linear layer.
 * @throws StateError for a model that is sharded or has factors already.
 */
export function addLora<M extends AnyModule>(model: M, options: LoraOptions): M {
  const { targetModules, rank = 8, alpha = 8 } = options;
  if (!Number.isSafeInteger(rank) || rank < 1) {
    throw new ConfigError(`addLora() failed: rank ${rank}, allowed are whole numbers from 1 on`);
  }
  if (!(alpha > 0 && alpha < Number.POSITIVE_INFINITY)) {
    throw new ConfigError(`addLora() failed: alpha ${alpha}, allowed are numbers > 0`);
  }
  const layers = linearLayers(model);
  const names = [...layers.keys()];
  const fits = (name: string, target: string): boolean => name === target || name.endsWith(`.${target}`);
  const unknown = targetModules.filter((target) => !names.some((name) => fits(name, target)));
  if (unknown.length > 0 || targetModules.length === 0) {
    throw new ConfigError(
      `addLora() failed: targetModules "${unknown.join('", "')}" name no linear layer, there are ${names.join(", ")}`,
    );
  }
  const parameters = model.parameters();
  const managed = parameters.find(({ manager }) => manager !== undefined);
  if (managed !== undefined) {
    throw new StateError(
      `addLora() failed: parameter "${managed.name}" is sharded, add factors before sharding`,
    );
  }
  const chosen = [...layers].filter(([name]) => targetModules.some((target) => fits(name, target)));
  const twice = chosen.find(([, layer]) => adapters.has(layer));
  if (twice !== undefined) throw new StateError(`addLora() failed: "${twice[0]}" has factors already`);
  for (const parameter of parameters) parameter.requiresGrad = false;
  for (const [, layer] of chosen) adapt(layer, rank, alpha / rank);
  return model;
}

/** The factors of a model: what its optimizer is to update. */
export function loraParameters(model: AnyModule): Parameter[] {
  return [...model.modules()].flatMap((module) => adapters.get(module) ?? []).map(({ weight }) => weight);
}

function linearLayers(model: AnyModule): ReadonlyMap<string, Linear | Conv1D> {
  const layers = new Map<string, Linear | Conv1D>();
  for (const [name, module] of model.namedModules()) {
    if (module instanceof Linear || module instanceof Conv1D) layers.set(name, module);
  }
  return layers;
}

function adapt(layer: Linear | Conv1D, rank: number, scale: number): void {
  const [rows, columns] = layer.weight.shape as [number, number];
  const [outputs, inputs] = layer instanceof Linear ? [rows, columns] : [columns, rows];
  const a = new Linear(inputs, rank, { bias: false });
  const b = new Linear(rank, outputs, { bias: false });
  b.weight.initializer = constant(0);
  adapters.set(layer, [a, b]);
  Object.assign(layer, { lora_A: a, lora_B: b });
  layer.wrapCall(async (args, next) => {
    const [x, activation] = args as [Tensor, MatmulActivation | undefined];
    const plain = (await next([x])) as Tensor;
    const sum = add(plain, mul(await b.call(await a.call(x)), scale));
    return activation === undefined ? sum : ACTIVATIONS[activation](sum);
  }, "inside");
}

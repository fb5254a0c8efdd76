/**
 * `convertToFloat8Training`, as torchao's `convert_to_float8_training` with `enable_fsdp_float8_all_gather`: marks the
 * matrices of linear layers, whose units gather bytes of float8_e4m3fn from then on.
 *
 * @module
 */
import { DTYPES } from "../../core/contracts/dtype.ts";
import { ConfigError, StateError } from "../../core/contracts/errors.ts";
import { type AnyModule, Conv1D, Linear, type Parameter } from "../../core/nn/mod.ts";
import { Float8AllGather, type Float8Recipe, type Float8Scaling } from "./all-gather.ts";

/** Options of `convertToFloat8Training`. */
export interface Float8TrainingOptions {
  /**
   * `"tensorwise"`, the default: a scale for a matrix. `"rowwise"`: one for each of its rows as stored, which are the
   * outputs of a Linear and the inputs of a Conv1D.
   */
  readonly recipe?: Float8Recipe | undefined;
  /** Says of a linear layer, by its name in the model, whether it is converted. Default: every one. */
  readonly moduleFilterFn?: ((module: AnyModule, name: string) => boolean) | undefined;
  /** Scales are rounded down to powers of two. Default: with `"rowwise"` only, as in torchao. */
  readonly roundScalesToPowerOf2?: boolean | undefined;
}

/** Recipes by name, the default first. */
export const RECIPES: readonly Float8Recipe[] = ["tensorwise", "rowwise"];

/**
 * Lets the weights of the model's Linear and Conv1D layers travel as bytes. What is stored and updated, gradients and
 * their reduction stay as they are; layers compute with the floats that the bytes stand for, in the policy's dtype.
 *
 * Call it before the layers are sharded, with FSDP2; FSDP1 refuses such a model.
 *
 * @returns the model.
 * @throws ConfigError for an unknown recipe, when no layer is converted, or for a weight that has another extension.
 * @throws StateError for a weight that is sharded already.
 */
export function convertToFloat8Training<M extends AnyModule>(
  model: M,
  options: Float8TrainingOptions = {},
): M {
  const { recipe = "tensorwise", moduleFilterFn = () => true } = options;
  if (!RECIPES.includes(recipe)) {
    throw new ConfigError(
      `Converting to float8 failed: recipe ${JSON.stringify(recipe)}, allowed are ${RECIPES.join(", ")}`,
    );
  }
  const { roundScalesToPowerOf2 = recipe === "rowwise" } = options;
  const chosen = new Map<Parameter, string>();
  for (const [name, module] of model.namedModules()) {
    if (!(module instanceof Linear || module instanceof Conv1D) || !moduleFilterFn(module, name)) continue;
    if (module.weight.numel > 0) chosen.set(module.weight, name === "" ? "weight" : `${name}.weight`);
  }
  if (chosen.size === 0) {
    throw new ConfigError(
      `Converting to float8 failed: ${model.constructor.name} has no Linear or Conv1D, or moduleFilterFn lets none pass`,
    );
  }
  for (const [parameter, name] of chosen) requireConvertible(parameter, name);
  const scaling: Float8Scaling = { recipe, roundScalesToPowerOf2 };
  for (const parameter of chosen.keys())
    parameter.allGatherExtension = new Float8AllGather(parameter, scaling);
  return model;
}

function requireConvertible(parameter: Parameter, name: string): void {
  const { manager, allGatherExtension, originalDType } = parameter;
  if (manager !== undefined) {
    throw new StateError(
      `Converting to float8 failed: "${name}" is sharded already by unit "${manager.unit}", convert the model before`,
    );
  }
  if (allGatherExtension !== undefined) {
    throw new ConfigError(
      `Converting to float8 failed: "${name}" has an allGatherExtension, allowed is one, and converting once`,
    );
  }
  if (!DTYPES[originalDType].floating) {
    throw new ConfigError(`Converting to float8 failed: "${name}" is ${originalDType}, allowed are floats`);
  }
}

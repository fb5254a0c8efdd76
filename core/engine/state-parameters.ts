/**
 * Parameters as state knows them: by the model's own names, whether modules list them or a flat one in their place.
 *
 * @module
 */
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A parameter of a model. */
export interface StateParameter {
  /** The model's name for it. */
  readonly name: string;
  readonly parameter: Parameter;
  /** What optimizers have it under: itself, or the flat one that stands for it. */
  readonly owner: Parameter;
  /** Where it begins in tensors that are shaped like the owner's `local`. */
  readonly offset: number;
}

/** A model's parameters, each once. */
export function stateParameters(model: AnyModule): StateParameter[] {
  return [...model.namedParameters()].flatMap(([name, owner]) => {
    if (owner.parts === undefined) return [{ name, parameter: owner, owner, offset: 0 }];
    const prefix = name.slice(0, name.lastIndexOf(".") + 1);
    let offset = 0;
    return owner.parts.map(({ name: inner, parameter }) => {
      const found = { name: prefix + inner, parameter, owner, offset };
      offset += parameter.local.numel;
      return found;
    });
  });
}

/** A parameter's part of a tensor that is shaped like its owner's `local`: a view, owned by the caller. */
export function partOf(tensor: Tensor, { parameter, offset }: StateParameter): Tensor {
  return tensor.alias(parameter.local.shape, offset);
}

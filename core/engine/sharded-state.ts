/**
 * What a checkpoint holds of a model and its optimizer, as this rank sees it: for every tensor its global shape and the
 * boxes that lie here. Nothing is copied or communicated to make it.
 *
 * Names are those of PyTorch's distributed state dicts: `model.<name>`, `optim.state.<name>.<key>`.
 *
 * @module
 */
import type { StateTensor } from "../contracts/checkpointer.ts";
import type { Collective } from "../contracts/collective.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { ParameterState } from "../optim/optimizer.ts";
import { numelOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** The boxes of `values` (shaped like the parameter's `local`) as state of the parameter's global shape. */
function cutLike(name: string, parameter: Parameter, values: Tensor, world: Collective): StateTensor {
  const { backend } = values.device;
  const replicated = parameter.manager === undefined && world.size > 1;
  const pieces = parameter.pieces.map(({ offsets, sizes, localOffset }) => {
    const span = { ...values.span, offset: values.offset + localOffset, length: numelOf(sizes) };
    return {
      offsets,
      sizes,
      ...(replicated ? { replica: { index: world.rank, count: world.size } } : {}),
      read: () => backend.read(span),
      write: (data: Parameters<typeof backend.write>[1]) => {
        backend.write(span, data);
        parameter.updated();
      },
    };
  });
  return { name, dtype: values.dtype, shape: parameter.shape, pieces };
}

/** The model's parameters. */
export function modelState(model: AnyModule, world: Collective): StateTensor[] {
  return [...model.namedParameters()].map(([name, parameter]) =>
    cutLike(`model.${name}`, parameter, parameter.local, world),
  );
}

/** What this file needs of an optimizer. */
export interface StatefulOptimizer {
  initState(): void;
  state(parameter: Parameter): ParameterState | undefined;
}

/**
 * The optimizer's state: its tensors, cut like their parameters, and each parameter's step count as a scalar. State
 * that does not exist yet is created, so that every trainable parameter has some to save and to load into.
 */
export function optimizerState(
  model: AnyModule,
  optimizer: StatefulOptimizer,
  world: Collective,
): StateTensor[] {
  optimizer.initState();
  return [...model.namedParameters()].flatMap(([name, parameter]) => {
    const state = optimizer.state(parameter);
    if (state === undefined) return [];
    const tensors = state.tensors.map(({ key, tensor }) =>
      cutLike(`optim.state.${name}.${key}`, parameter, tensor, world),
    );
    return [...tensors, scalar(`optim.state.${name}.step`, world, state)];
  });
}

/** A number that every rank holds. */
function scalar(name: string, world: Collective, holder: { step: number }): StateTensor {
  const replica = world.size > 1 ? { replica: { index: world.rank, count: world.size } } : {};
  return {
    name,
    dtype: "float32",
    shape: [],
    pieces: [
      {
        offsets: [],
        sizes: [],
        ...replica,
        read: async () => new Float32Array([holder.step]),
        write: (data) => {
          holder.step = Number(data[0]);
        },
      },
    ],
  };
}

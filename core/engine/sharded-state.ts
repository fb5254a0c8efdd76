/**
 * What a checkpoint holds of a model and its optimizer, as this rank sees it: for every tensor its global shape and the
 * boxes that lie here. Nothing is copied or communicated to make it.
 *
 * Names are those of PyTorch's distributed state dicts: `model.<name>`, `optim.state.<name>.<key>`.
 *
 * @module
 */
import type { StatePiece, StateTensor } from "../contracts/checkpointer.ts";
import type { Collective } from "../contracts/collective.ts";
import type { HostArray } from "../contracts/dtype.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { ParameterState } from "../optim/optimizer.ts";
import { numelOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { RankGroups } from "./rank-groups.ts";
import { partOf, stateParameters } from "./state-parameters.ts";

/** A rank among ranks. */
type Place = Pick<Collective, "rank" | "size">;

/** This rank's place among all ranks of some groups. */
export function placeOf(groups: RankGroups | undefined): Place {
  if (groups === undefined) return { rank: 0, size: 1 };
  const { group, replicate = { rank: 0, size: 1 } } = groups;
  return { rank: replicate.rank * group.size + group.rank, size: replicate.size * group.size };
}

/**
 * The boxes of `values` (shaped like the parameter's `local`) as state of the parameter's global shape.
 *
 * @param world the ranks that hold the parameter, if it is not sharded.
 */
export function cutLike(name: string, parameter: Parameter, values: Tensor, world: Place): StateTensor {
  const { backend } = values.device;
  const { manager } = parameter;
  const holders = manager === undefined ? world : manager.replicate;
  const pieces = parameter.pieces.map(({ offsets, sizes, localOffset }) => {
    const span = { ...values.span, offset: values.offset + localOffset, length: numelOf(sizes) };
    return {
      offsets,
      sizes,
      ...replicaAmong(holders),
      read: () => backend.read(span),
      readInto: (target: HostArray) => backend.readInto(span, target),
      view: () => backend.hostView(span),
      write: (data: HostArray) => {
        const own = backend.hostView(span);
        const inPlace = own?.buffer === data.buffer && own.byteOffset === data.byteOffset;
        if (!inPlace) backend.write(span, data);
        parameter.updated();
      },
    };
  });
  return { name, dtype: values.dtype, shape: parameter.shape, pieces };
}

function replicaAmong(holders: Place | undefined): Pick<StatePiece, "replica"> {
  if (holders === undefined || holders.size === 1) return {};
  return { replica: { index: holders.rank, count: holders.size } };
}

/** The model's parameters. */
export function modelState(model: AnyModule, world: Place): StateTensor[] {
  return stateParameters(model).map(({ name, parameter }) => ({
    ...cutLike(`model.${name}`, parameter, parameter.local, world),
    constant: !parameter.requiresGrad,
  }));
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
export function optimizerState(model: AnyModule, optimizer: StatefulOptimizer, world: Place): StateTensor[] {
  optimizer.initState();
  return stateParameters(model).flatMap((each) => {
    const { name, parameter, owner } = each;
    const state = optimizer.state(owner);
    if (state === undefined) return [];
    const tensors = state.tensors.map(({ key, tensor }) => {
      using part = partOf(tensor, each);
      return cutLike(`optim.state.${name}.${key}`, parameter, part, world);
    });
    return [...tensors, scalar(`optim.state.${name}.step`, world, state)];
  });
}

/** An update count, which every rank holds. */
export function scalar(name: string, world: Place, holder: { step: number }): StateTensor {
  return {
    name,
    dtype: "float32",
    shape: [],
    pieces: [
      {
        offsets: [],
        sizes: [],
        ...replicaAmong(world),
        read: async () => new Float32Array([holder.step]),
        write: (data) => {
          holder.step = Number(data[0]);
        },
      },
    ],
  };
}

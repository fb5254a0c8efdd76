/**
 * State dicts of a sharded model: whole tensors by name (FULL), this rank's flat shards (LOCAL), or the boxes that lie
 * here (SHARDED), as torch/distributed/fsdp/_state_dict_utils.py has them.
 *
 * Values are in host memory and in the parameters' own dtype. Names are those of the model, tied parameters under each
 * of theirs; nothing of the wrapping shows.
 *
 * @module
 */
import type { StateTensor } from "../../core/contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../../core/contracts/errors.ts";
import { gatherLike } from "../../core/engine/full-tensor.ts";
import type { FullModelStateDict } from "../../core/engine/model-state-dict.ts";
import { isFirst } from "../../core/engine/rank-groups.ts";
import { modelState, placeOf } from "../../core/engine/sharded-state.ts";
import { type FullLoad, type HostTensor, loadFull } from "../../core/engine/state-dict.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import type { Parameter } from "../../core/nn/parameter.ts";
import { sameShape, showShape } from "../../core/tensor/shape.ts";
import { FLAT_NAME, type FlatParameter } from "./flat-parameter.ts";
import { type NamedParameter, unitsIn, type Wrapped } from "./wrapped.ts";

/** Parameters that are in no unit: every rank has them whole. */
function ignoredIn(module: AnyModule): [string, Parameter][] {
  return [...module.namedParameters()].filter(([, parameter]) => parameter.manager === undefined);
}

/** A parameter under its names in the model; those of units first. */
function namedIn(root: Wrapped): NamedParameter[] {
  return [
    ...unitsIn(root.module).flatMap(({ prefix, unit }) =>
      unit.parameters.map(({ name, names, parameter }) => ({
        name: prefix + name,
        names: names.map((each) => prefix + each),
        parameter,
      })),
    ),
    ...ignoredIn(root.module).map(([name, parameter]) => ({ name, names: [name], parameter })),
  ];
}

/**
 * FULL: every parameter whole. Collective.
 *
 * @param rank0Only the other ranks get an empty dict, and hold nothing whole.
 */
export async function fullStateDict(root: Wrapped, rank0Only: boolean): Promise<FullModelStateDict> {
  const wanted = !rank0Only || isFirst(root.groups);
  const dict: Record<string, HostTensor> = {};
  for (const { names, parameter } of namedIn(root)) {
    const { originalDType: dtype, shape } = parameter;
    const data = await gatherLike(parameter, parameter.local, wanted);
    for (const name of data === undefined ? [] : names) dict[name] = { dtype, shape, data: data! };
  }
  return inModelOrder(root.module, dict);
}

/** The same in the order in which the model defines its modules. */
function inModelOrder(model: AnyModule, dict: FullModelStateDict): FullModelStateDict {
  const order = new Map([...model.namedModules()].map(([path], i) => [path, i]));
  const indexOf = (name: string): number => {
    let path = name;
    do path = path.slice(0, Math.max(path.lastIndexOf("."), 0));
    while (!order.has(path));
    return order.get(path)!;
  };
  return Object.fromEntries(Object.entries(dict).sort(([a], [b]) => indexOf(a) - indexOf(b)));
}

/**
 * Takes over whole tensors, of which each rank keeps its part.
 *
 * @param sent the first rank alone has the dict; collective then.
 * @throws CheckpointError on every rank that lists what is missing, unknown, or of another shape or dtype; nothing is
 * changed then.
 */
export async function loadFullStateDict(
  root: Wrapped,
  dict: FullModelStateDict,
  sent: boolean,
): Promise<void> {
  const named = namedIn(root);
  const namesOf = new Map(named.map(({ name, names }) => [name, names]));
  const load: FullLoad = {
    what: "a state dict",
    targets: named.map(({ name, parameter }) => ({ name, parameter, values: parameter.local })),
    aliases: new Set(named.flatMap(({ names }) => names)),
    names: Object.keys(dict),
    find: (name) => dict[namesOf.get(name)!.find((each) => Object.hasOwn(dict, each)) ?? name],
    groups: root.groups,
  };
  await loadFull(load, { broadcastFromRank0: sent });
}

/** LOCAL: this rank's part of every flat parameter, without padding, as `..._flat_param`. @throws ConfigError where there are none. */
export async function localStateDict(root: Wrapped): Promise<FullModelStateDict> {
  const dict: Record<string, HostTensor> = {};
  for (const { name, flat } of flatsOf(root)) {
    const { local } = flat;
    dict[name] = { dtype: local.dtype, shape: local.shape, data: await local.data() };
  }
  return dict;
}

/**
 * Takes over what `localStateDict` gave on this rank of an equal job.
 *
 * @throws CheckpointError when flat parameters are missing, unknown, or of another length or dtype.
 */
export function loadLocalStateDict(root: Wrapped, dict: FullModelStateDict): void {
  const flats = flatsOf(root);
  const names = new Set(flats.map(({ name }) => name));
  const unknown = Object.keys(dict).find((name) => !names.has(name));
  if (unknown !== undefined) {
    throw new CheckpointError(`Loading a local state dict failed: "${unknown}" is not in the model`);
  }
  for (const { name, flat } of flats) {
    const { local } = flat;
    const given = dict[name];
    if (given === undefined || given.dtype !== local.dtype || !sameShape(given.shape, local.shape)) {
      const what = given === undefined ? "is missing" : `is ${given.dtype} ${showShape(given.shape)}`;
      throw new CheckpointError(
        `Loading a local state dict failed: "${name}" ${what}, this rank has ${local.dtype} ${showShape(local.shape)}; it takes the same units and ranks`,
      );
    }
  }
  for (const { name, flat } of flats) {
    flat.local.device.backend.write(flat.local.span, dict[name]!.data);
    flat.updated();
  }
}

function flatsOf(root: Wrapped): { readonly name: string; readonly flat: FlatParameter }[] {
  return unitsIn(root.module).map(({ prefix, unit, wrapped }) => {
    if (unit.flat === undefined || wrapped.plan.strategy === "NO_SHARD") {
      const why = unit.flat === undefined ? "useOrigParams: true" : "NO_SHARD";
      throw new ConfigError(
        `LOCAL_STATE_DICT failed: ${wrapped.module.constructor.name} was sharded with ${why}, allowed are sharded strategies without useOrigParams`,
      );
    }
    return { name: prefix + FLAT_NAME, flat: unit.flat };
  });
}

/**
 * SHARDED: every parameter as the boxes of it that lie here, live: to be saved, or loaded into, as `model.<name>`, which is
 * what checkpoints of any version and wrapping call it. No communication.
 */
export function shardedStateDict(root: Wrapped): StateTensor[] {
  return modelState(root.module, placeOf(root.groups));
}

/**
 * State dicts of optimizers, keyed by the model's names, as `get_optimizer_state_dict` and `set_optimizer_state_dict` of
 * `torch.distributed.checkpoint.state_dict`: they fit however the model is cut.
 *
 * @module
 */
import type { StateTensor } from "../contracts/checkpointer.ts";
import { CheckpointError } from "../contracts/errors.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { gatherLike } from "./full-tensor.ts";
import { groupsByName, type NamedGroups, savedValues } from "./optimizer-groups.ts";
import { broadcastValue, groupsOf, isFirst, type RankGroups } from "./rank-groups.ts";
import { cutLike, placeOf } from "./sharded-state.ts";
import {
  type GetStateDictOptions,
  type HostTensor,
  loadFull,
  loadSharded,
  type SetStateDictOptions,
} from "./state-dict.ts";
import { partOf, stateParameters } from "./state-parameters.ts";

/** What an optimizer remembers of one parameter. */
export interface OptimizerParameterState<T> {
  /** Updates so far. */
  readonly step: number;
  /** By PyTorch's names: `exp_avg`, ... */
  readonly tensors: Readonly<Record<string, T>>;
}

/** An optimizer's state. */
export interface OptimizerStateDict<T> {
  /** By the parameter's name in the model. */
  readonly state: Readonly<Record<string, OptimizerParameterState<T>>>;
  readonly paramGroups: NamedGroups;
}

/** State tensors as the boxes that lie on this rank, live. */
export type ShardedOptimizerStateDict = OptimizerStateDict<StateTensor>;
/** Whole state tensors, copied to host memory. */
export type FullOptimizerStateDict = OptimizerStateDict<HostTensor>;

/**
 * An optimizer's state: the boxes that lie here, without communication; or, with `fullStateDict`, whole tensors, gathered
 * one after the other. Parameters that were never updated have none.
 */
export async function getOptimizerStateDict(
  model: AnyModule,
  optimizer: Optimizer,
  options: GetStateDictOptions & { readonly fullStateDict: true },
): Promise<FullOptimizerStateDict>;
export async function getOptimizerStateDict(
  model: AnyModule,
  optimizer: Optimizer,
  options?: GetStateDictOptions & { readonly fullStateDict?: false },
): Promise<ShardedOptimizerStateDict>;
export async function getOptimizerStateDict(
  model: AnyModule,
  optimizer: Optimizer,
  options: GetStateDictOptions = {},
): Promise<FullOptimizerStateDict | ShardedOptimizerStateDict> {
  const groups = groupsOf(model);
  const full = options.fullStateDict === true;
  const wanted = !full || options.cpuOffload !== true || isFirst(groups);
  const place = placeOf(groups);
  const state: Record<string, OptimizerParameterState<HostTensor | StateTensor>> = {};
  const all = stateParameters(model);
  for (const each of all) {
    const { name, parameter, owner } = each;
    const held = optimizer.state(owner);
    if (held === undefined) continue;
    const tensors: Record<string, HostTensor | StateTensor> = {};
    for (const { key, tensor } of held.tensors) {
      const { dtype } = tensor;
      using part = partOf(tensor, each);
      if (!full) tensors[key] = cutLike(`${name}.${key}`, parameter, part, place);
      else {
        const data = await gatherLike(parameter, part, wanted);
        if (data !== undefined) tensors[key] = { dtype, shape: parameter.shape, data };
      }
    }
    if (wanted) state[name] = { step: held.step, tensors };
  }
  const paramGroups = wanted ? groupsByName(optimizer, all) : [];
  return { state, paramGroups } as FullOptimizerStateDict | ShardedOptimizerStateDict;
}

/** What of a whole dict every rank must know. */
interface Head {
  readonly steps: Readonly<Record<string, number>>;
  readonly paramGroups: NamedGroups;
}

/**
 * Gives an optimizer other state: tensors, step counts and its groups' values.
 *
 * @throws CheckpointError for names, tensors or groups that do not fit; with whole tensors nothing is changed then, and
 *   every rank throws.
 */
export async function setOptimizerStateDict(
  model: AnyModule,
  optimizer: Optimizer,
  dict: FullOptimizerStateDict | ShardedOptimizerStateDict,
  options: SetStateDictOptions = {},
): Promise<void> {
  optimizer.initState();
  const groups = groupsOf(model);
  const sent = options.fullStateDict === true && options.broadcastFromRank0 === true;
  const head = await headOf(dict, sent, groups);
  const all = stateParameters(model);
  const values = savedValues(groupsByName(optimizer, all), head.paramGroups);
  const held = all.flatMap((each) => {
    const state = optimizer.state(each.owner);
    // What was never updated when it was saved begins anew.
    return state === undefined || head.steps[each.name] === undefined
      ? []
      : [{ each, name: each.name, state }];
  });
  const unknown = Object.keys(head.steps).find((name) => !held.some((each) => each.name === name));
  if (unknown !== undefined && options.strict !== false) {
    const where = all.some(({ name }) => name === unknown)
      ? "among the parameters that it updates"
      : "in the model";
    throw new CheckpointError(`Loading an optimizer's state failed: "${unknown}" is not ${where}`);
  }
  const targets = held.flatMap(({ each, name, state }) =>
    state.tensors.map(({ key, tensor }) => {
      const { parameter } = each;
      return { owner: name, key, name: `${name}.${key}`, parameter, values: partOf(tensor, each) };
    }),
  );
  try {
    if (options.fullStateDict === true) {
      const tensors = tensorsByName(dict as FullOptimizerStateDict);
      const known = new Set(held.map(({ name }) => name));
      const names = [...tensors].filter(([, { owner }]) => known.has(owner)).map(([name]) => name);
      const find = (name: string): HostTensor | undefined => tensors.get(name)?.tensor;
      const load = { what: "an optimizer's state", targets, aliases: new Set<string>(), names, find, groups };
      await loadFull(load, options);
    } else {
      const { state } = dict as ShardedOptimizerStateDict;
      for (const { owner, key, name, parameter, values: own } of targets) {
        const source = state[owner]!.tensors[key];
        if (source === undefined) {
          throw new CheckpointError(`Loading an optimizer's state failed: "${name}" is missing`);
        }
        const target = cutLike(name, parameter, own, placeOf(groups));
        await loadSharded("an optimizer's state", target, source);
      }
    }
  } finally {
    for (const target of targets) target.values.dispose();
  }
  for (const { name, state } of held) state.step = head.steps[name]!;
  optimizer.loadGroupValues(values);
}

function headOf(
  dict: FullOptimizerStateDict | ShardedOptimizerStateDict,
  sent: boolean,
  groups: RankGroups | undefined,
): Promise<Head> {
  const steps: Record<string, number> = {};
  for (const [name, { step }] of Object.entries(dict.state)) steps[name] = step;
  const own = { steps, paramGroups: dict.paramGroups };
  return sent ? broadcastValue(groups, own) : Promise.resolve(own);
}

function tensorsByName({
  state,
}: FullOptimizerStateDict): ReadonlyMap<string, { readonly owner: string; readonly tensor: HostTensor }> {
  return new Map(
    Object.entries(state).flatMap(([owner, { tensors }]) =>
      Object.entries(tensors).map(([key, tensor]) => [`${owner}.${key}`, { owner, tensor }] as const),
    ),
  );
}

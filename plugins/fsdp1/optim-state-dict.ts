/**
 * State dicts of an optimizer over a sharded model: keyed by the model's names, whether the optimizer has its parameters
 * or flat ones, so that they fit any wrapping and any number of ranks. Follows torch/distributed/fsdp/_optim_utils.py.
 *
 * @module
 */
import type { StateTensor, Value } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { gatherLike } from "../../core/engine/full-tensor.ts";
import type { FullOptimizerStateDict } from "../../core/engine/optimizer-state-dict.ts";
import { broadcastValue, isFirst } from "../../core/engine/rank-groups.ts";
import { cutLike, placeOf, scalar } from "../../core/engine/sharded-state.ts";
import { type HostTensor, type LoadTarget, loadFull } from "../../core/engine/state-dict.ts";
import type { Parameter } from "../../core/nn/parameter.ts";
import type { Optimizer, ParameterState } from "../../core/optim/optimizer.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";
import { ignoredIn } from "./state-dict.ts";
import { unitsIn, type Wrapped } from "./wrapped.ts";

/** A parameter as an optimizer has it. */
interface Held {
  readonly name: string;
  readonly parameter: Parameter;
  /** What the optimizer has it under: the parameter, or its unit's flat one. */
  readonly owner: Parameter;
  /** Where the parameter begins in tensors of the owner's state. */
  readonly offset: number;
}

/** All parameters of a model, those of units first. */
function heldIn(root: Wrapped): Held[] {
  const managed = unitsIn(root.module).flatMap(({ prefix, unit }) => {
    let offset = 0;
    return unit.parameters.map(({ name, parameter }) => {
      const held = { name: prefix + name, parameter, owner: unit.flat ?? parameter, offset };
      if (unit.flat !== undefined) offset += parameter.local.numel;
      return held;
    });
  });
  const ignored = ignoredIn(root.module).map(([name, parameter]) => ({
    name,
    parameter,
    owner: parameter,
    offset: 0,
  }));
  return [...managed, ...ignored];
}

/** The part of a state tensor that belongs to a parameter, owned by the caller. */
function partOf(tensor: Tensor, { parameter, offset }: Held): Tensor {
  return tensor.alias(parameter.local.shape, offset);
}

/**
 * FULL: the whole state. Collective.
 *
 * @param rank0Only the other ranks get an empty dict.
 * @throws CheckpointError on every rank when ranks differ in what they have state of.
 */
export async function fullOptimStateDict(
  root: Wrapped,
  optimizer: Optimizer,
  rank0Only: boolean,
): Promise<FullOptimizerStateDict> {
  const wanted = !rank0Only || isFirst(root.groups);
  const held = heldIn(root);
  await requireAgreement(root, optimizer, held);
  const state: Record<string, FullOptimizerStateDict["state"][string]> = {};
  for (const each of held) {
    const own = optimizer.state(each.owner);
    if (own === undefined) continue;
    const tensors: Record<string, HostTensor> = {};
    for (const { key, tensor } of own.tensors) {
      using part = partOf(tensor, each);
      const data = await gatherLike(each.parameter, part, wanted);
      if (data !== undefined) tensors[key] = { dtype: tensor.dtype, shape: each.parameter.shape, data };
    }
    if (wanted) state[each.name] = { step: own.step, tensors };
  }
  return { state, paramGroups: wanted ? groupsByName(optimizer, held) : [] };
}

/** Lest some ranks wait for others' tensors. */
async function requireAgreement(
  { groups: { group } }: Wrapped,
  optimizer: Optimizer,
  held: readonly Held[],
): Promise<void> {
  if (group.size === 1) return;
  const most = Int32Array.from(held, ({ owner }) => optimizer.state(owner)?.tensors.length ?? -1);
  const least = most.map((count) => -count);
  await group.allReduce(most, "max", "int32").wait();
  await group.allReduce(least, "max", "int32").wait();
  const odd = held.find((_, i) => most[i] !== -least[i]!);
  if (odd === undefined) return;
  throw new CheckpointError(
    `Gathering optimizer state failed: of parameter "${odd.name}" some ranks have state and others have not, step on all of them first`,
  );
}

/** The optimizer's groups, their parameters by the model's names. */
function groupsByName(optimizer: Optimizer, held: readonly Held[]): FullOptimizerStateDict["paramGroups"] {
  const names = new Map<Parameter, string[]>();
  for (const { name, owner } of held) names.set(owner, [...(names.get(owner) ?? []), name]);
  const values = optimizer.groupValues();
  return optimizer.groups.map(({ params }, i) => ({
    values: values[i]!,
    params: params.flatMap((parameter) => names.get(parameter) ?? []),
  }));
}

/**
 * Takes over a whole state, of which each rank keeps its part; parameters without state in it begin anew.
 *
 * @param sent the first rank alone has the dict; collective then.
 * @throws CheckpointError on every rank for a dict that does not fit the model or the optimizer's groups; nothing is
 * changed then.
 */
export async function loadFullOptimStateDict(
  root: Wrapped,
  optimizer: Optimizer,
  dict: FullOptimizerStateDict,
  sent: boolean,
): Promise<void> {
  const steps = Object.fromEntries(Object.entries(dict.state).map(([name, { step }]) => [name, step]));
  const own = { steps, paramGroups: dict.paramGroups };
  const head = sent ? await broadcastValue(root.groups, own) : own;
  const all = heldIn(root);
  const values = groupsByName(optimizer, all).map(({ params }, i) => valuesFor(head.paramGroups, params, i));
  const known = new Set(all.map(({ name }) => name));
  const unknown = Object.keys(head.steps).find((name) => !known.has(name));
  if (unknown !== undefined) {
    throw new CheckpointError(`Loading optimizer state failed: "${unknown}" is not in the model`);
  }
  optimizer.initState();
  const targets: LoadTarget[] = [];
  const states = new Map<string, ParameterState>();
  const found = new Map<string, HostTensor>();
  for (const each of all) {
    const state = optimizer.state(each.owner);
    if (state === undefined || head.steps[each.name] === undefined) continue;
    states.set(each.name, state);
    for (const [key, tensor] of Object.entries(dict.state[each.name]?.tensors ?? {})) {
      found.set(`${each.name}.${key}`, tensor);
    }
    for (const { key, tensor } of state.tensors) {
      targets.push({ name: `${each.name}.${key}`, parameter: each.parameter, values: partOf(tensor, each) });
    }
  }
  try {
    const names = [...found.keys()];
    const find = (name: string): HostTensor | undefined => found.get(name);
    const load = {
      what: "optimizer state",
      targets,
      aliases: new Set<string>(),
      names,
      find,
      groups: root.groups,
    };
    await loadFull(load, { broadcastFromRank0: sent });
  } finally {
    for (const target of targets) target.values.dispose();
  }
  for (const [name, state] of states) state.step = head.steps[name]!;
  optimizer.loadGroupValues(values);
}

/** Values of the saved group that holds these parameters. */
function valuesFor(
  groups: FullOptimizerStateDict["paramGroups"],
  names: readonly string[],
  index: number,
): Readonly<Record<string, Value>> {
  const [first] = names;
  const group = groups.find(({ params }) => first !== undefined && params.includes(first));
  const outside = names.find((name) => group?.params.includes(name) !== true);
  if (group !== undefined && outside === undefined) return group.values;
  throw new CheckpointError(
    `Loading optimizer state failed: group ${index} has "${outside ?? first}", and no saved group has all of its parameters`,
  );
}

/**
 * SHARDED: the state as the boxes that lie here, live, as `optim.state.<name>.<key>` and `optim.state.<name>.step`, which
 * is what checkpoints of any version and wrapping call it. No communication.
 */
export function shardedOptimStateDict(root: Wrapped, optimizer: Optimizer): StateTensor[] {
  optimizer.initState();
  const world = placeOf(root.groups);
  return heldIn(root).flatMap((each) => {
    const state = optimizer.state(each.owner);
    if (state === undefined) return [];
    const tensors = state.tensors.map(({ key, tensor }) => {
      using part = partOf(tensor, each);
      return cutLike(`optim.state.${each.name}.${key}`, each.parameter, part, world);
    });
    return [...tensors, scalar(`optim.state.${each.name}.step`, world, state)];
  });
}

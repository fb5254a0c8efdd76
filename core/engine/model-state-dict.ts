/**
 * State dicts of models, as `get_model_state_dict` and `set_model_state_dict` of
 * `torch.distributed.checkpoint.state_dict`.
 *
 * Names are the model's own; a tied parameter stands under its first name, and may be loaded from a dict that has it
 * under all.
 *
 * @module
 */
import type { StateTensor } from "../contracts/checkpointer.ts";
import type { Collective } from "../contracts/collective.ts";
import type { DType, HostArray } from "../contracts/dtype.ts";
import { CheckpointError } from "../contracts/errors.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Shape } from "../tensor/shape.ts";
import { gatherLike } from "./full-tensor.ts";
import { broadcastValue, groupsOf, isFirst } from "./rank-groups.ts";
import { cutLike, placeOf } from "./sharded-state.ts";
import {
  type GetStateDictOptions,
  type HostTensor,
  type IncompatibleKeys,
  loadFull,
  loadSharded,
  type SetStateDictOptions,
} from "./state-dict.ts";
import { type StateParameter, stateParameters } from "./state-parameters.ts";

/** Parameters by name, as the boxes that lie on this rank. They show and change the parameters themselves. */
export type ShardedModelStateDict = Readonly<Record<string, StateTensor>>;
/** Whole parameters by name, copied to host memory. */
export type FullModelStateDict = Readonly<Record<string, HostTensor>>;

/** A model's parameters: the boxes that lie here, without communication; or, with `fullStateDict`, whole ones. */
export async function getModelStateDict(
  model: AnyModule,
  options: GetStateDictOptions & { readonly fullStateDict: true },
): Promise<FullModelStateDict>;
export async function getModelStateDict(
  model: AnyModule,
  options?: GetStateDictOptions & { readonly fullStateDict?: false },
): Promise<ShardedModelStateDict>;
export async function getModelStateDict(
  model: AnyModule,
  options: GetStateDictOptions = {},
): Promise<FullModelStateDict | ShardedModelStateDict> {
  if (options.fullStateDict !== true) {
    const place = placeOf(groupsOf(model));
    const tensors = stateParameters(model).map(({ name, parameter }) => [
      name,
      cutLike(name, parameter, parameter.local, place),
    ]);
    return Object.fromEntries(tensors) as ShardedModelStateDict;
  }
  const dict: Record<string, HostTensor> = {};
  for await (const [name, tensor] of fullTensors(model, options.cpuOffload === true)) dict[name] = tensor;
  return dict;
}

/**
 * A model's parameters whole, one after the other, so that a large model can be written without holding it. Collective:
 * every rank must go through all of them.
 *
 * @param rank0Only the first rank alone gets them.
 */
export async function* fullTensors(
  model: AnyModule,
  rank0Only = false,
): AsyncGenerator<readonly [string, HostTensor]> {
  const wanted = !rank0Only || isFirst(groupsOf(model));
  for (const { name, parameter } of stateParameters(model)) {
    const { originalDType: dtype, shape } = parameter;
    const data = await gatherLike(parameter, parameter.local, wanted);
    if (data !== undefined) yield [name, { dtype, shape, data }];
  }
}

/** A whole parameter that is gathered when it is read. */
export interface ReadableTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** Row-major, in host memory. */
  read(): Promise<HostArray>;
}

/** What the first rank wants of the others: a parameter by its place, or no more. */
type Wish = { readonly next: number } | { readonly problem?: string };

/**
 * Lends a model's whole parameters to the first rank of `world`, which reads them in any order, one at a time. Collective:
 * the other ranks, whose `use` is not called, help until it has ended.
 *
 * @throws what `use` threw, and on the other ranks a CheckpointError that says so.
 */
export async function withFullTensors(
  model: AnyModule,
  world: Collective,
  use: (tensors: readonly ReadableTensor[]) => Promise<void>,
): Promise<void> {
  const all = { group: world };
  const parameters = stateParameters(model);
  const gather = ({ parameter }: StateParameter, wanted: boolean): Promise<HostArray | undefined> =>
    gatherLike(parameter, parameter.local, wanted);
  if (world.rank !== 0) {
    for (;;) {
      const wish = await broadcastValue<Wish>(all, {});
      if ("next" in wish) await gather(parameters[wish.next]!, false);
      else if (wish.problem === undefined) return;
      else throw new CheckpointError(wish.problem);
    }
  }
  let turn: Promise<unknown> = Promise.resolve();
  const tensors = parameters.map((own, next): ReadableTensor => {
    const { originalDType: dtype, shape } = own.parameter;
    const fetch = async (): Promise<HostArray> => {
      await broadcastValue<Wish>(all, { next });
      return (await gather(own, true))!;
    };
    const read = (): Promise<HostArray> => {
      const data = turn.then(fetch);
      turn = data.catch(() => undefined);
      return data;
    };
    return { name: own.name, dtype, shape, read };
  });
  try {
    await use(tensors);
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    await turn;
    // When ranks cannot be reached that is what failed.
    await broadcastValue<Wish>(all, { problem }).catch(() => undefined);
    throw error;
  }
  await turn;
  await broadcastValue<Wish>(all, {});
}

/**
 * Gives a model, which is on a device, other values.
 *
 * @returns names that did not fit, when `strict` is false.
 * @throws CheckpointError for names, shapes or dtypes that do not fit; with whole tensors nothing is changed then, and
 *   every rank throws.
 */
export async function setModelStateDict(
  model: AnyModule,
  dict: FullModelStateDict | ShardedModelStateDict,
  options: SetStateDictOptions = {},
): Promise<IncompatibleKeys> {
  if (options.fullStateDict === true) {
    const full = dict as FullModelStateDict;
    const load = {
      what: "a model's state",
      targets: stateParameters(model).map(({ name, parameter }) => ({
        name,
        parameter,
        values: parameter.local,
      })),
      aliases: tiedNames(model),
      names: Object.keys(full),
      find: (name: string) => (Object.hasOwn(full, name) ? full[name] : undefined),
      groups: groupsOf(model),
    };
    return await loadFull(load, options);
  }
  const own = await getModelStateDict(model);
  const given = dict as ShardedModelStateDict;
  const missingKeys = Object.keys(own).filter((name) => !Object.hasOwn(given, name));
  const unexpectedKeys = Object.keys(given).filter((name) => !Object.hasOwn(own, name));
  const odd = [...missingKeys, ...unexpectedKeys];
  if (odd.length > 0 && options.strict !== false) {
    throw new CheckpointError(
      `Loading a model's state failed: "${odd.join('", "')}" ${missingKeys.length > 0 ? "missing" : "unknown"}`,
    );
  }
  for (const [name, tensor] of Object.entries(own)) {
    if (Object.hasOwn(given, name)) await loadSharded("a model's state", tensor, given[name]!);
  }
  return { missingKeys, unexpectedKeys };
}

/** Names of parameters beside their first ones. */
function tiedNames(model: AnyModule): ReadonlySet<string> {
  const first = new Set([...model.namedParameters()].map(([name]) => name));
  const all = new Set<string>();
  for (const [path, module] of model.namedModules()) {
    for (const [name] of module.ownParameters()) all.add(path === "" ? name : `${path}.${name}`);
  }
  return all.difference(first);
}

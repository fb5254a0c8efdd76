/**
 * Turns modules into units: takes their parameters over and wraps their calls, so that parameters are gathered before
 * they compute and freed after.
 *
 * @module
 */
import { ConfigError, StateError } from "../contracts/errors.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import { castFloating, checkPolicy, type MixedPrecisionPolicy } from "./mixed-precision.ts";
import { neighboursOf } from "./neighbours.ts";
import { Schedule } from "./schedule.ts";
import type { ShardModuleOptions } from "./shard-options.ts";
import {
  parametersOutsideUnits,
  registerSharded,
  requireAllManaged,
  type ShardedModule,
  shardedModule,
  unitOf,
  unitsBelow,
} from "./sharded-modules.ts";
import { Unit } from "./unit.ts";

export type { BackwardPrefetch, ShardModuleOptions } from "./shard-options.ts";
export { unitOf, unitsBelow } from "./sharded-modules.ts";

/** Whether backward passes reduce the gradients of every unit below `module`, or let them add up whole on each rank. */
export function setRequiresGradientSync(module: AnyModule, sync: boolean): void {
  for (const unit of unitsBelow(module)) {
    unit.requiresGradientSync = sync;
    unit.reducer.requiresAllReduce = sync;
  }
}

/**
 * Makes the parameters below a module that no inner unit has taken into a unit of its own. Inner modules first. Several
 * modules make one unit: gathered when the first of them computes, freed after the last.
 *
 * @returns the unit, or nothing when there are no such parameters.
 * @throws StateError when a module was sharded already.
 * @throws ConfigError when a parameter belongs to another unit too, or options do not fit.
 */
export function shardModule(
  module: AnyModule | readonly AnyModule[],
  options: ShardModuleOptions,
): Unit | undefined {
  const modules = [
    ...new Set(Array.isArray(module) ? (module as readonly AnyModule[]) : [module as AnyModule]),
  ];
  if (modules.length === 0)
    throw new ConfigError("Sharding failed: an empty list of modules, give one or more");
  const label = modules.map((each) => each.constructor.name).join(", ");
  const precision = options.precision ?? {};
  checkPolicy(precision);
  const twice = modules.find((each) => shardedModule(each) !== undefined);
  if (twice !== undefined) {
    throw new StateError(
      `Sharding failed: this ${twice.constructor.name} was sharded already, allowed is once`,
    );
  }
  const ignored = options.ignored ?? new Set();
  const parameters = parametersFor(modules, label, ignored);
  const unit = parameters.length === 0 ? undefined : new Unit(label, modules, parameters, options);
  for (const each of modules) {
    const entry: ShardedModule = { unit, precision, ignored, schedule: undefined, isLastBackward: true };
    registerSharded(each, entry);
    each.wrapCall((args, next) => runUnit(each, entry, args, next));
  }
  return unit;
}

/** The parameters that a unit of these modules takes, each once. */
function parametersFor(
  modules: readonly AnyModule[],
  label: string,
  ignored: ReadonlySet<Parameter>,
): readonly Parameter[] {
  const parameters = new Set<Parameter>();
  for (const module of modules) {
    for (const { name, parameter } of parametersOutsideUnits(module)) {
      if (ignored.has(parameter)) continue;
      if (parameter.manager !== undefined) {
        throw new ConfigError(
          `Sharding ${label} failed: parameter "${name}" is tied to "${parameter.name}" of unit "${parameter.manager.unit}", shard the modules that share it in one call, as a list`,
        );
      }
      if (parameter.name === "") parameter.name = name;
      parameters.add(parameter);
    }
  }
  return [...parameters];
}

/** Gathers, computes, frees. */
async function runUnit(
  module: AnyModule,
  entry: ShardedModule,
  args: readonly unknown[],
  next: (args: readonly unknown[]) => Promise<unknown>,
): Promise<unknown> {
  const schedule = entry.schedule ?? (await beginSchedule(module));
  const isRoot = schedule.rootModule === module;
  const { unit, precision } = entry;
  const region = unit?.device.region;
  try {
    if (isRoot) schedule.beginForward();
    if (unit !== undefined) {
      await schedule.enterForward(unit, module);
      unit.device.region = unit;
    }
    const result = await compute(precision, args, next);
    if (unit !== undefined) schedule.leaveForward(unit);
    if (isRoot) await schedule.endForward();
    return result;
  } catch (error) {
    schedule.reset();
    throw error;
  } finally {
    if (unit !== undefined) unit.device.region = region;
  }
}

async function compute(
  { paramDtype, outputDtype, castForwardInputs = true }: MixedPrecisionPolicy,
  args: readonly unknown[],
  next: (args: readonly unknown[]) => Promise<unknown>,
): Promise<unknown> {
  const casting = paramDtype !== undefined && castForwardInputs;
  const result = await next(casting ? (castFloating(args, paramDtype) as readonly unknown[]) : args);
  return outputDtype === undefined ? result : castFloating(result, outputDtype);
}

/** The first sharded module that runs is the root of all below it. */
async function beginSchedule(root: AnyModule): Promise<Schedule> {
  const label = root.constructor.name;
  const below = [...root.modules()].flatMap((module) => shardedModule(module) ?? []);
  if (below.some((entry) => entry.schedule !== undefined)) {
    throw new StateError(
      `Calling ${label} failed: a sharded module below it ran on its own before, call the root first`,
    );
  }
  const rootUnit = unitOf(root);
  if (rootUnit !== undefined && rootUnit.modules.length > 1) {
    const group = rootUnit.modules.map((module) => module.constructor.name).join(", ");
    throw new StateError(
      `Calling ${label} failed: it was sharded in one list with others (${group}) and cannot be the root, call the module that contains them, sharded too`,
    );
  }
  requireAllManaged(root);
  const units = unitsBelow(root);
  if (units.length === 0) throw new StateError(`Calling ${label} failed: it has no parameters to shard`);
  nameUnits(root);
  const { device } = units[0]!;
  for (const unit of units) {
    const { reshardAfterForward: count } = unit;
    if (typeof count === "number") unit.neighbours = await neighboursOf(unit.group, count);
  }
  const schedule = new Schedule(root, rootUnit, units, device);
  schedule.isLastBackward = shardedModule(root)?.isLastBackward ?? true;
  for (const entry of below) entry.schedule = schedule;
  return schedule;
}

/** Calls units by the paths of their modules. */
function nameUnits(root: AnyModule): void {
  const paths = new Map<Unit, string[]>();
  for (const [path, module] of root.namedModules()) {
    const unit = unitOf(module);
    if (unit !== undefined) paths.set(unit, [...(paths.get(unit) ?? []), path]);
  }
  for (const [unit, names] of paths) unit.name = names.join(",");
}

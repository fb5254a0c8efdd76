/**
 * Turns a module into a unit: takes its parameters over and wraps its calls, so that they are gathered before it
 * computes and freed after it.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import { ConfigError, StateError } from "../contracts/errors.ts";
import type { ShardFactory } from "../contracts/shard.ts";
import type { AnyModule } from "../nn/module.ts";
import { castFloating, checkPolicy, type MixedPrecisionPolicy } from "./mixed-precision.ts";
import { Schedule } from "./schedule.ts";
import { Unit } from "./unit.ts";

/** How to make a unit of a module. */
export interface ShardModuleOptions {
  readonly layout: ShardFactory;
  /** The ranks over which parameters are cut. */
  readonly group: Collective;
  /** Free the gathered parameters after forward; `undefined`: yes, but not in the root. */
  readonly reshardAfterForward?: boolean | undefined;
  /**
   * Gather the next unit's parameters while this one's forward computes, in the order of the pass before. Default false.
   */
  readonly forwardPrefetch?: boolean | undefined;
  /** What the unit computes and communicates in; its parameters' own dtype by default. */
  readonly precision?: MixedPrecisionPolicy | undefined;
}

/** What sharding knows of a module. */
interface Entry {
  /** Absent when every parameter below belongs to inner units. */
  readonly unit: Unit | undefined;
  readonly precision: MixedPrecisionPolicy;
  schedule: Schedule | undefined;
}

const entries = new WeakMap<AnyModule, Entry>();

/** The unit that a sharded module has, if it has parameters of its own. */
export function unitOf(module: AnyModule): Unit | undefined {
  return entries.get(module)?.unit;
}

/** The units at and below a module, parents first. */
export function unitsBelow(module: AnyModule): Unit[] {
  return [...module.modules()].flatMap((inner) => unitOf(inner) ?? []);
}

/** Whether backward passes reduce the gradients of every unit below `module`, or let them add up whole on each rank. */
export function setRequiresGradientSync(module: AnyModule, sync: boolean): void {
  for (const unit of unitsBelow(module)) unit.requiresGradientSync = sync;
}

/**
 * Makes the parameters below `module` that no inner unit has taken into a unit of its own. Inner modules first.
 *
 * @throws StateError when the module was sharded already.
 * @throws ConfigError when its parameters do not share one dtype.
 */
export function shardModule(module: AnyModule, options: ShardModuleOptions): void {
  const label = module.constructor.name;
  const precision = options.precision ?? {};
  checkPolicy(precision);
  if (entries.has(module)) throw new StateError(`Sharding failed: this ${label} was sharded already`);
  const parameters = [...module.namedParameters()].flatMap(([name, parameter]) => {
    if (parameter.name === "") parameter.name = name;
    return parameter.manager === undefined ? [parameter] : [];
  });
  const odd = parameters.find((parameter) => parameter.dtype !== parameters[0]?.dtype);
  if (odd !== undefined) {
    throw new ConfigError(
      `Sharding ${label} failed: parameter "${odd.name}" is ${odd.dtype}, the others of its unit are ${parameters[0]!.dtype}`,
    );
  }
  const unit =
    parameters.length === 0
      ? undefined
      : new Unit({
          name: label,
          parameters,
          layout: options.layout,
          group: options.group,
          reshardAfterForward: options.reshardAfterForward,
          precision,
          forwardPrefetch: options.forwardPrefetch ?? false,
        });
  const entry: Entry = { unit, precision, schedule: undefined };
  entries.set(module, entry);
  module.wrapCall((args, next) => runUnit(module, entry, args, next));
}

/** Gathers, computes, frees. */
async function runUnit(
  module: AnyModule,
  entry: Entry,
  args: readonly unknown[],
  next: (args: readonly unknown[]) => Promise<unknown>,
): Promise<unknown> {
  const schedule = entry.schedule ?? beginSchedule(module);
  if (schedule.rootModule === module) schedule.beginForward();
  const { unit, precision } = entry;
  const { paramDtype, outputDtype, castForwardInputs = true } = precision;
  const compute = async (): Promise<unknown> => {
    const casting = paramDtype !== undefined && castForwardInputs;
    const result = await next(casting ? (castFloating(args, paramDtype) as readonly unknown[]) : args);
    return outputDtype === undefined ? result : castFloating(result, outputDtype);
  };
  const isRoot = schedule.rootModule === module;
  if (unit === undefined) {
    const result = await compute();
    if (isRoot) await schedule.endForward();
    return result;
  }
  const { device } = unit;
  const outer = device.region;
  try {
    await unit.unshard();
    schedule.enteredForward(unit);
    device.region = unit;
    const result = await compute();
    schedule.leftForward(unit);
    if (isRoot) await schedule.endForward();
    return result;
  } catch (error) {
    schedule.reset();
    throw error;
  } finally {
    device.region = outer;
  }
}

/** The first sharded module that runs is the root of all below it. */
function beginSchedule(root: AnyModule): Schedule {
  const below = [...root.modules()].flatMap((module) => entries.get(module) ?? []);
  if (below.some((entry) => entry.schedule !== undefined)) {
    throw new StateError(
      `Calling ${root.constructor.name} failed: a sharded module below it ran on its own before, call the root first`,
    );
  }
  const units = below.flatMap((entry) => entry.unit ?? []);
  if (units.length === 0)
    throw new StateError(`Calling ${root.constructor.name} failed: it has no parameters to shard`);
  const schedule = new Schedule(root, unitOf(root), units, units[0]!.device);
  for (const entry of below) entry.schedule = schedule;
  return schedule;
}

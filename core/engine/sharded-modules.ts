/**
 * What sharding knows of modules: which unit and which schedule a module has.
 *
 * @module
 */
import { StateError } from "../contracts/errors.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { MixedPrecisionPolicy } from "./mixed-precision.ts";
import type { Schedule } from "./schedule.ts";
import type { Unit } from "./unit.ts";

/** A sharded module. */
export interface ShardedModule {
  /** Absent when every parameter below belongs to inner units. */
  readonly unit: Unit | undefined;
  readonly precision: MixedPrecisionPolicy;
  readonly ignored: ReadonlySet<Parameter>;
  /** Absent before the first forward pass. */
  schedule: Schedule | undefined;
  /** What `schedule.isLastBackward` begins with. */
  isLastBackward: boolean;
}

const modules = new WeakMap<AnyModule, ShardedModule>();

/** What is known of a module, if it was sharded. */
export function shardedModule(module: AnyModule): ShardedModule | undefined {
  return modules.get(module);
}

/** Notes that a module was sharded. */
export function registerSharded(module: AnyModule, entry: ShardedModule): void {
  modules.set(module, entry);
}

/** The unit that a sharded module has, if it has parameters of its own. */
export function unitOf(module: AnyModule): Unit | undefined {
  return modules.get(module)?.unit;
}

/** The units at and below a module, parents first, each once. */
export function unitsBelow(module: AnyModule): Unit[] {
  return [...new Set([...module.modules()].flatMap((inner) => unitOf(inner) ?? []))];
}

/** A parameter that a module sees outside of its inner units. */
export interface SeenParameter {
  /** Path from the module. */
  readonly name: string;
  readonly parameter: Parameter;
}

/** The parameters below `root` that are in no sharded module below it, under every name that they have. */
export function* parametersOutsideUnits(root: AnyModule): Generator<SeenParameter> {
  const seen = new Set<AnyModule>();
  function* visit(module: AnyModule, prefix: string): Generator<SeenParameter> {
    if (seen.has(module) || (module !== root && modules.has(module))) return;
    seen.add(module);
    for (const [name, parameter] of module.ownParameters()) yield { name: prefix + name, parameter };
    for (const [name, child] of module.namedChildren()) yield* visit(child, `${prefix}${name}.`);
  }
  yield* visit(root, "");
}

/** @throws StateError for a parameter that no unit holds although its module was sharded. */
export function requireAllManaged(root: AnyModule): void {
  for (const [path, module] of root.namedModules()) {
    const entry = modules.get(module);
    if (entry === undefined) continue;
    for (const { name, parameter } of parametersOutsideUnits(module)) {
      if (parameter.manager !== undefined || entry.ignored.has(parameter)) continue;
      const full = path === "" ? name : `${path}.${name}`;
      throw new StateError(
        `Calling ${root.constructor.name} failed: parameter "${full}" was added after its module had been sharded, shard the module when it is complete`,
      );
    }
  }
}

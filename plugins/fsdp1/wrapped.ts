/**
 * What FSDP1 remembers of a module that it sharded. Everything else in this folder finds it here.
 *
 * @module
 */
import { StateError } from "../../core/contracts/errors.ts";
import type { RankGroups } from "../../core/engine/rank-groups.ts";
import type { Unit } from "../../core/engine/unit.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import type { Parameter } from "../../core/nn/parameter.ts";
import { type FlatLayout, type FlatRange, rangesIn } from "./flat-layout.ts";
import type { FlatParameter } from "./flat-parameter.ts";
import type { UnitPlan } from "./options.ts";

/** What a sharded module is doing. */
export type Phase = "idle" | "forward" | "backward" | "summoned";

/** A parameter under its names within its unit's module. */
export interface NamedParameter {
  /** The first in the order of definition. */
  readonly name: string;
  /** All, of which tied parameters have several. */
  readonly names: readonly string[];
  readonly parameter: Parameter;
}

/** The parameters of one unit, and where they lie. */
export interface FlatUnit {
  /** What gathers and reduces it. */
  readonly engine: Unit;
  readonly parameters: readonly NamedParameter[];
  readonly layout: FlatLayout;
  /** What modules list without `useOrigParams`. */
  readonly flat: FlatParameter | undefined;
}

/** This rank's range of a parameter. */
export interface OwnRange extends FlatRange {
  /** Where it begins in the rank's shard. */
  readonly shardOffset: number;
}

/** What this rank holds of a unit's parameters, in order. */
export function ownRanges({ engine, layout }: FlatUnit): OwnRange[] {
  const { rank } = engine.group;
  const first = rank * engine.shardNumel;
  return rangesIn(layout, first, first + engine.shardNumel).map((range) => ({
    ...range,
    shardOffset: layout.starts[range.parameter]! + range.begin - first,
  }));
}

/** A module that FSDP1 sharded. */
export interface Wrapped {
  readonly module: AnyModule;
  readonly plan: UnitPlan;
  readonly groups: RankGroups;
  readonly useOrigParams: boolean;
  readonly limitAllGathers: boolean;
  /** Absent when units below hold all its parameters. */
  readonly unit: FlatUnit | undefined;
  /** No sharded module is around it. */
  isRoot: boolean;
  phase: Phase;
  /** Whether backward passes reduce gradients; the root's counts. */
  syncing: boolean;
}

const known = new WeakMap<AnyModule, Wrapped>();

/** Remembers a sharded module. */
export function remember(wrapped: Wrapped): void {
  known.set(wrapped.module, wrapped);
}

/** What is known of a module, if FSDP1 sharded it. */
export function wrappedOf(module: AnyModule): Wrapped | undefined {
  return known.get(module);
}

/** The sharded modules at and below a module, parents first. */
export function wrappedBelow(module: AnyModule): Wrapped[] {
  return [...module.modules()].flatMap((inner) => known.get(inner) ?? []);
}

/** A unit and where its module is. */
export interface UnitAt {
  /** Path of the module with a dot behind it, or nothing. */
  readonly prefix: string;
  readonly unit: FlatUnit;
  readonly wrapped: Wrapped;
}

/** The units at and below a module, parents first. */
export function unitsIn(root: AnyModule): UnitAt[] {
  return [...root.namedModules()].flatMap(([path, module]) => {
    const wrapped = known.get(module);
    const prefix = path === "" ? "" : `${path}.`;
    return wrapped?.unit === undefined ? [] : [{ prefix, unit: wrapped.unit, wrapped }];
  });
}

/** Every parameter below a module that is in no sharded module below it, under all its names. */
export function parametersOf(root: AnyModule): NamedParameter[] {
  const found = new Map<Parameter, string[]>();
  const visit = (module: AnyModule, prefix: string, around: ReadonlySet<AnyModule>): void => {
    if (around.has(module) || (module !== root && known.has(module))) return;
    for (const [name, parameter] of module.ownParameters()) {
      const names = found.get(parameter) ?? [];
      found.set(parameter, names);
      names.push(prefix + name);
    }
    for (const [name, child] of module.namedChildren()) {
      visit(child, `${prefix}${name}.`, new Set([...around, module]));
    }
  };
  visit(root, "", new Set());
  return [...found].map(([parameter, names]) => ({ name: names[0]!, names, parameter }));
}

/**
 * The sharded modules at and below the root.
 *
 * @throws StateError when `root` is not one, or something is under way in it.
 */
export function idleRoot(root: Wrapped, call: string): Wrapped[] {
  if (!root.isRoot) {
    throw new StateError(
      `${call} failed: this ${root.module.constructor.name} lies within another sharded module, call it on the outermost`,
    );
  }
  return idle(root, call);
}

/** The sharded modules at and below one. @throws StateError when something is under way in it. */
export function idle(wrapped: Wrapped, call: string): Wrapped[] {
  const below = wrappedBelow(wrapped.module);
  const busy = below.find(({ phase }) => phase !== "idle");
  if (busy === undefined) return below;
  const what = busy.phase === "summoned" ? "summonFullParams() is" : `a ${busy.phase} pass is`;
  throw new StateError(
    `${call} failed: ${what} under way in this ${wrapped.module.constructor.name}, call it when none is`,
  );
}

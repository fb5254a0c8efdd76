/**
 * FSDP1's sharding of a model in place: modules that the wrap policy chooses become units, the rest the root's, each with
 * one flat parameter. Follows `_auto_wrap` and `_init_param_handle_from_module` of torch/distributed/fsdp.
 *
 * @module
 */
import process from "node:process";
import type { DType } from "../../core/contracts/dtype.ts";
import { ConfigError, StateError } from "../../core/contracts/errors.ts";
import { splitDivision } from "../../core/engine/gradient-division.ts";
import { isFirst } from "../../core/engine/rank-groups.ts";
import { shardModule } from "../../core/engine/shard-module.ts";
import { shardedModule } from "../../core/engine/sharded-modules.ts";
import { chooseModules, moduleWrap, noWrap, orWrap, type WrapPolicy } from "../../core/engine/wrap-policy.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import { Parameter } from "../../core/nn/parameter.ts";
import { FlatParameter, replaceByFlat, requireHideable } from "./flat-parameter.ts";
import { flatShard, layoutOf } from "./flat-shard.ts";
import { aroundForward } from "./forward.ts";
import {
  type BackwardPrefetch,
  checkOptions,
  checkUnitOptions,
  type FullyShardedDataParallelOptions,
  type Ignored,
  ignoredOf,
  NAME,
  type UnitOptions,
  unitPlan,
} from "./options.ts";
import { groupsOf, isHybrid, reshardAfterForwardOf } from "./strategy.ts";
import { syncValues } from "./sync-module-states.ts";
import {
  type FlatUnit,
  type NamedParameter,
  parametersOf,
  remember,
  type Wrapped,
  wrappedBelow,
  wrappedOf,
} from "./wrapped.ts";

const PREFETCH: Readonly<Record<BackwardPrefetch, "pre" | "post" | "none">> = {
  BACKWARD_PRE: "pre",
  BACKWARD_POST: "post",
  NO_PREFETCH: "none",
};

/**
 * Shards the parameters below `module` that are not sharded yet and not ignored.
 *
 * @param listFlat without `useOrigParams`, modules list the flat parameters in place of their own.
 * @returns what FSDP1 knows of `module`, the root of all below it.
 * @throws ConfigError for options that are not allowed, alone or together, or with the model.
 * @throws StateError when `module` was sharded already.
 */
export function shardInPlace(
  module: AnyModule,
  options: FullyShardedDataParallelOptions,
  listFlat = false,
): Wrapped {
  checkOptions(options);
  if (wrappedOf(module) !== undefined || shardedModule(module) !== undefined) {
    throw new StateError(`${NAME} failed: this ${module.constructor.name} was sharded already`);
  }
  const ignored = ignoredOf(options, (inner) => wrappedOf(inner) !== undefined);
  const inner = wrappedBelow(module);
  const root = wrapping(options, ignored, listFlat);
  checkNested(root, inner);
  const mine = modulesOutside(
    module,
    new Set([...ignored.modules, ...inner.map((wrapped) => wrapped.module)]),
  );
  if (options.paramInitFn !== undefined) callInit(mine, options.paramInitFn, ignored);

  const warn = options.onWarning ?? (isFirst(root.groups) ? printWarning : () => {});
  if (ignored.modules.has(module)) warn(`${NAME}: the module itself is ignored, so nothing is sharded`);
  if (options.shardingStrategy !== undefined && options.shardingStrategy !== "NO_SHARD") {
    if (root.groups.group.size === 1 && root.groups.replicate === undefined) {
      warn(`${NAME}: ${options.shardingStrategy} over one rank cuts nothing, as NO_SHARD`);
    }
  }

  const outside = new Set([...module.modules()].filter((each) => !mine.has(each)));
  const except = { modules: outside, parameters: ignored.parameters };
  for (const chosen of chooseModules(module, policyOf(options), except)) {
    if (chosen.options !== undefined) checkUnitOptions(chosen.options, chosen.name);
    const made = wrapping(options, ignored, listFlat, chosen.options);
    wrap(
      chosen.module,
      chosen.options === FULL_PRECISION ? inFullPrecision(chosen.module, made, options) : made,
    );
  }
  const wrapped = wrap(module, root);
  for (const below of wrappedBelow(module)) below.isRoot = below === wrapped;
  return wrapped;
}

/** With `syncModuleStates`, before a module that has values is sharded. Collective. */
export async function syncBefore(module: AnyModule, options: FullyShardedDataParallelOptions): Promise<void> {
  const ignored = ignoredOf(options, (inner) => wrappedOf(inner) !== undefined);
  await syncValues(module, ignored.parameters, wrapping(options, ignored, false).groups);
}

/** All that is decided about a unit before it is made. */
interface Wrapping extends Pick<Wrapped, "plan" | "groups" | "useOrigParams" | "limitAllGathers"> {
  readonly ignored: Ignored;
  readonly listFlat: boolean;
  /** Floating outputs are cast to it. */
  readonly outputDtype?: DType | undefined;
}

function wrapping(
  options: FullyShardedDataParallelOptions,
  ignored: Ignored,
  listFlat: boolean,
  own?: UnitOptions,
): Wrapping {
  const plan = unitPlan({ ...options, ...own });
  const groups = groupsOf(plan.strategy, options.mesh, options.processGroup);
  return {
    plan,
    groups,
    ignored,
    listFlat,
    useOrigParams: options.useOrigParams ?? false,
    limitAllGathers: options.limitAllGathers ?? true,
  };
}

/** What the policy answers for modules that mixed precision leaves alone. */
const FULL_PRECISION: UnitOptions = Object.freeze({ mixedPrecision: undefined });

/** Such a module computes in its parameters' dtype, whatever it is given, and goes on in what the others compute in. */
function inFullPrecision(
  module: AnyModule,
  made: Wrapping,
  { mixedPrecision }: FullyShardedDataParallelOptions,
): Wrapping {
  const paramDtype = module.parameters()[0]?.originalDType;
  const plan = { ...made.plan, mixedPrecision: { paramDtype, castForwardInputs: true } };
  return { ...made, plan, outputDtype: mixedPrecision?.paramDtype };
}

/** Makes one unit of what is left below `module`. */
function wrap(module: AnyModule, made: Wrapping): Wrapped {
  const { ignored, listFlat, plan, groups, useOrigParams, limitAllGathers } = made;
  const parameters = parametersOf(module).filter(
    ({ parameter }) => parameter.manager === undefined && !ignored.parameters.has(parameter),
  );
  checkPlain(parameters);
  const { mixedPrecision, cpuOffload } = plan;
  const { paramDtype, reduceDtype = paramDtype, castForwardInputs = false } = mixedPrecision;
  const flatOptions = { useOrigParams, paramDtype };
  const specs = parameters.map(({ name, parameter: { shape, dtype } }) => ({ name, shape, dtype }));
  const layout = specs.length === 0 ? undefined : layoutOf(specs, flatOptions);
  if (!useOrigParams) checkUniform(module, parameters);
  const flattens = listFlat && !useOrigParams;
  if (flattens) requireHideable(module, parameters);
  // Without anything to shard, at and below it, it is called as any other module.
  const bare = layout === undefined && !wrappedBelow(module).some(({ unit: below }) => below !== undefined);
  const engine = bare
    ? undefined
    : shardModule(module, {
        layout: flatShard(flatOptions),
        group: groups.group,
        replicate: groups.replicate,
        reshardAfterForward: reshardAfterForwardOf(plan.strategy),
        backwardPrefetch: PREFETCH[plan.backwardPrefetch],
        forwardPrefetch: plan.forwardPrefetch,
        precision: { paramDtype, reduceDtype, castForwardInputs, outputDtype: made.outputDtype },
        keepLowPrecisionGrads: mixedPrecision.keepLowPrecisionGrads,
        offload: cpuOffload === undefined ? undefined : { device: cpuOffload.device },
        ignored: ignored.parameters,
        gradientDivision: splitDivision,
      });
  let unit: FlatUnit | undefined;
  if (layout !== undefined && engine !== undefined) {
    const flat = flattens ? new FlatParameter(layout, parameters) : undefined;
    if (flat !== undefined) replaceByFlat(module, flat);
    unit = { engine, parameters, layout, flat };
  }
  const wrapped: Wrapped = {
    module,
    plan,
    groups,
    useOrigParams,
    limitAllGathers,
    unit,
    isRoot: true,
    phase: "idle",
    syncing: true,
  };
  module.wrapCall(aroundForward(wrapped));
  remember(wrapped);
  return wrapped;
}

/** @throws ConfigError when some parameters of a unit learn and others do not. */
function checkUniform(module: AnyModule, parameters: readonly NamedParameter[]): void {
  const learns = parameters.find(({ parameter }) => parameter.requiresGrad);
  const frozen = parameters.find(({ parameter }) => !parameter.requiresGrad);
  if (learns === undefined || frozen === undefined) return;
  throw new ConfigError(
    `${NAME} failed: in the unit of ${module.constructor.name}, "${learns.name}" requires a gradient and "${frozen.name}" does not, which takes useOrigParams: true`,
  );
}

/** @throws ConfigError for a parameter that gathers other bytes than it stores: flat parameters are gathered as they are. */
function checkPlain(parameters: readonly NamedParameter[]): void {
  const extended = parameters.find(({ parameter }) => parameter.allGatherExtension !== undefined);
  if (extended === undefined) return;
  throw new ConfigError(
    `${NAME} failed: parameter "${extended.name}" has an allGatherExtension, which takes FSDP2`,
  );
}

/** @throws ConfigError when modules below were sharded with options that must be the same everywhere. */
function checkNested(root: Wrapping, inner: readonly Wrapped[]): void {
  for (const { module, ...wrapped } of inner) {
    for (const name of ["useOrigParams", "limitAllGathers"] as const) {
      if (wrapped[name] === root[name]) continue;
      throw new ConfigError(
        `${NAME} failed: ${name} is ${root[name]}, but ${wrapped[name]} for the ${module.constructor.name} below, allowed is one value for all`,
      );
    }
    const hybrid = isHybrid(root.plan.strategy) && isHybrid(wrapped.plan.strategy);
    const { group, replicate } = wrapped.groups;
    if (hybrid && (group !== root.groups.group || replicate !== root.groups.replicate)) {
      throw new ConfigError(
        `${NAME} failed: the ${module.constructor.name} below was sharded over other groups of ranks, allowed are the same for all`,
      );
    }
  }
}

/** `module` and what lies below it, but not `excluded` and what lies below them. */
function modulesOutside(module: AnyModule, excluded: ReadonlySet<AnyModule>): ReadonlySet<AnyModule> {
  const found = new Set<AnyModule>();
  const visit = (each: AnyModule): void => {
    if (found.has(each) || excluded.has(each)) return;
    found.add(each);
    for (const [, child] of each.namedChildren()) visit(child);
  };
  visit(module);
  return found;
}

/** Calls `init` for the modules, parents first, that have parameters of their own without values. */
function callInit(
  modules: ReadonlySet<AnyModule>,
  init: (module: AnyModule) => void,
  ignored: Ignored,
): void {
  for (const module of modules) {
    const own = Object.values(module).flatMap((value: unknown) => value);
    const waiting = (value: unknown): boolean =>
      value instanceof Parameter && !value.materialized && !ignored.parameters.has(value);
    if (own.some(waiting)) init(module);
  }
}

function printWarning(message: string): void {
  process.stderr.write(`${message}\n`);
}

/** The policy, before which come classes that mixed precision leaves alone. */
function policyOf(options: FullyShardedDataParallelOptions): WrapPolicy<UnitOptions> {
  const policy = (options.autoWrapPolicy ?? noWrap) as WrapPolicy<UnitOptions>;
  const full = options.mixedPrecision?.moduleClassesToIgnore ?? [];
  if (full.length === 0 || options.autoWrapPolicy === undefined) return policy;
  const isFull = moduleWrap(full);
  return orWrap<UnitOptions>((...asked) => isFull(...asked) && FULL_PRECISION, policy);
}

/**
 * Wrap policies: which modules of a model become units of their own. What is left goes to the root's unit.
 *
 * A policy is a function, so that a custom one needs no class: it is asked for every module, children before their
 * parents, as `torch.distributed.fsdp.wrap` does, and may answer with options for that unit alone.
 *
 * @module
 */
import { ConfigError } from "../contracts/errors.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";

/** What a policy may want to know beside the module and its name. */
export interface WrapContext {
  /** Parameter elements in the module and below it that no chosen module below it has taken. */
  readonly unwrapped: number;
  /** The modules around it, outermost first. */
  readonly parents: readonly AnyModule[];
}

/**
 * Says whether a module becomes a unit. Asked for every module below the root.
 *
 * @typeParam O options that it may give to single units in place of `true`, for versions that take such.
 */
export type WrapPolicy<O extends object = never> = (
  module: AnyModule,
  name: string,
  context: WrapContext,
) => boolean | O;

/** A class of modules. */
export type ModuleClass = abstract new (...args: never[]) => AnyModule;

/** No module but the root. */
export const noWrap: WrapPolicy = () => false;

/** Every module that has parameters. */
export const alwaysWrap: WrapPolicy = (_module, _name, { unwrapped }) => unwrapped > 0;

/**
 * Modules of the named classes, a transformer's blocks.
 *
 * @throws ConfigError when the model has none of a name.
 */
export function transformerWrap(model: AnyModule, classNames: readonly string[]): WrapPolicy {
  const present = new Set([...model.modules()].map((module) => module.constructor.name));
  const missing = classNames.filter((name) => !present.has(name));
  if (missing.length > 0) {
    throw new ConfigError(
      `Transformer wrap policy failed: class "${missing.join('", "')}" is not in the model, it has ${[...present].sort().join(", ")}`,
    );
  }
  const wanted = new Set(classNames);
  return (module) => wanted.has(module.constructor.name);
}

/** Modules of the classes, or of classes derived from them (`ModuleWrapPolicy`). */
export function moduleWrap(classes: Iterable<ModuleClass>): WrapPolicy {
  const wanted = [...classes];
  return (module) => wanted.some((type) => module instanceof type);
}

/** Modules with more than `minNumParams` parameter elements, those of their children included (FSDP2's rule in Accelerate). */
export function sizeWrap(minNumParams: number): WrapPolicy {
  return (module) => module.parameters().reduce((sum, parameter) => sum + parameter.numel, 0) > minNumParams;
}

/**
 * Modules with at least `minNumParams` parameter elements that no module below them has taken (FSDP1's rule,
 * `size_based_auto_wrap_policy`).
 *
 * @param leaves modules of these classes are never cut up: nothing below them becomes a unit.
 */
export function remainingSizeWrap(minNumParams = 1e8, leaves: Iterable<ModuleClass> = []): WrapPolicy {
  const isLeaf = moduleWrap(leaves);
  return (_module, name, context) =>
    context.unwrapped >= minNumParams && !context.parents.some((parent) => isLeaf(parent, name, context));
}

/** Modules that any of the policies chooses; the first that does gives the unit's options. */
export function orWrap<O extends object = never>(...policies: readonly WrapPolicy<O>[]): WrapPolicy<O> {
  return (module, name, context) => {
    for (const policy of policies) {
      const answer = policy(module, name, context);
      if (answer !== false) return answer;
    }
    return false;
  };
}

/** A module that a policy chose. */
export interface ChosenModule<O extends object> {
  readonly module: AnyModule;
  readonly name: string;
  /** What the policy gave for this unit alone. */
  readonly options: O | undefined;
}

/** What a policy is not asked about. */
export interface WrapExceptions {
  /** Neither these nor modules below them are chosen. */
  readonly modules?: ReadonlySet<AnyModule> | undefined;
  /** Count nowhere. */
  readonly parameters?: ReadonlySet<Parameter> | undefined;
}

/**
 * The modules that a policy chooses below `model`, children before parents, the root not among them.
 *
 * @throws ConfigError when the policy answers with something that is neither a boolean nor an object of options.
 */
export function chooseModules<O extends object = never>(
  model: AnyModule,
  policy: WrapPolicy<O>,
  except: WrapExceptions = {},
): ChosenModule<O>[] {
  const chosen: ChosenModule<O>[] = [];
  const names = new Map([...model.namedModules()].map(([name, module]) => [module, name]));
  const seen = new Set<AnyModule>();
  const taken = new Set<Parameter>(except.parameters);
  const visit = (module: AnyModule, parents: readonly AnyModule[]): void => {
    if (seen.has(module) || except.modules?.has(module)) return;
    seen.add(module);
    for (const [, child] of module.namedChildren()) visit(child, [...parents, module]);
    if (parents.length === 0) return;
    const left = module.parameters().filter((parameter) => !taken.has(parameter));
    const unwrapped = left.reduce((sum, parameter) => sum + parameter.numel, 0);
    const name = names.get(module)!;
    const answer: unknown = policy(module, name, { unwrapped, parents });
    if (answer === false) return;
    if (answer !== true && (typeof answer !== "object" || answer === null || Array.isArray(answer))) {
      throw new ConfigError(
        `Wrap policy failed: it answered ${JSON.stringify(answer)} for "${name}", allowed are true, false or an object of options`,
      );
    }
    for (const parameter of left) taken.add(parameter);
    chosen.push({ module, name, options: answer === true ? undefined : (answer as O) });
  };
  visit(model, []);
  return chosen;
}

/** The modules that a policy chooses below `model`, children before parents, the root not among them. */
export function modulesToWrap(model: AnyModule, policy: WrapPolicy): AnyModule[] {
  return chooseModules(model, policy).map(({ module }) => module);
}

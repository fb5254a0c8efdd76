/**
 * Wrap policies: which modules of a model become units of their own. What is left goes to the root's unit.
 *
 * @module
 */
import { ConfigError } from "../contracts/errors.ts";
import type { AnyModule } from "../nn/module.ts";

/** Says whether a module becomes a unit. Asked for every module below the root. */
export type WrapPolicy = (module: AnyModule, name: string) => boolean;

/** No module but the root. */
export const noWrap: WrapPolicy = () => false;

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

/** Modules with more than `minNumParams` parameter elements, those of their children included (FSDP2's rule in Accelerate). */
export function sizeWrap(minNumParams: number): WrapPolicy {
  return (module) => module.parameters().reduce((sum, parameter) => sum + parameter.numel, 0) > minNumParams;
}

/** The modules that a policy chooses below `model`, children before parents, the root not among them. */
export function modulesToWrap(model: AnyModule, policy: WrapPolicy): AnyModule[] {
  return [...model.namedModules()]
    .slice(1)
    .filter(([name, module]) => policy(module, name))
    .map(([, module]) => module)
    .reverse();
}

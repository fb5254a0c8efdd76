/**
 * Module: a part of a model. What its author writes is `forward`; what a caller writes is `await module.call(x)`, which
 * runs `forward` inside whatever was wrapped around it (gathering a sharded unit's parameters, say) and frees what it
 * made and did not return.
 *
 * Parameters and children are found as ordinary properties, in the order in which they were assigned, in arrays too;
 * private `#fields` are not seen. Names are PyTorch's: property names joined by dots.
 *
 * @module
 */
import { ConfigError } from "../contracts/errors.ts";
import type { Device } from "../tensor/device.ts";
import { Tensor } from "../tensor/tensor.ts";
import { Parameter } from "./parameter.ts";

/** Something around a module's call. Must call `next` once, with the arguments or others, and return what it gives or other. */
export type CallWrapper = (
  args: readonly unknown[],
  next: (args: readonly unknown[]) => Promise<unknown>,
) => Promise<unknown>;

/** Any module. */
export type AnyModule = Module<never[], unknown>;

/** A part of a model that takes `Args` and gives `Result`. */
export abstract class Module<Args extends unknown[] = never[], Result = unknown> {
  /** Whether dropout and the like act; set by `train()` and `eval()`. */
  training = true;
  readonly #wrappers: CallWrapper[] = [];

  abstract forward(...args: Args): Result | Promise<Result>;

  /** Runs the module. Tensors that `forward` makes and does not return or keep are freed when it ends. */
  async call(...args: Args): Promise<Result> {
    const forward = (given: readonly unknown[]): unknown => this.forward(...(given as Args));
    return (await this.#run(forward, args)) as Result;
  }

  /** Puts `wrapper` around every later call: outside earlier ones, or inside all of them. */
  wrapCall(wrapper: CallWrapper, where: "outside" | "inside" = "outside"): void {
    if (where === "outside") this.#wrappers.push(wrapper);
    else this.#wrappers.unshift(wrapper);
  }

  /**
   * Lets another method run as `call` lets `forward`: inside what is wrapped around calls. It returns a promise from now on.
   *
   * @throws ConfigError when the module has no method of that name.
   */
  wrapMethod(name: string): void {
    const method: unknown = Reflect.get(this, name);
    if (typeof method !== "function") {
      throw new ConfigError(
        `Wrapping method "${name}" failed: ${this.constructor.name} has no method of that name`,
      );
    }
    const value = (...args: unknown[]): Promise<unknown> =>
      this.#run((given) => Reflect.apply(method, this, given), args);
    Object.defineProperty(this, name, { value, configurable: true, writable: true });
  }

  /** Direct children by name. */
  *namedChildren(): Generator<[string, AnyModule]> {
    for (const [name, value] of entries(this)) if (value instanceof Module) yield [name, value];
  }

  /** Parameters that are this module's own properties, by name, under every name. */
  *ownParameters(): Generator<[string, Parameter]> {
    for (const [name, value] of entries(this)) if (value instanceof Parameter) yield [name, value];
  }

  /** This module (named `prefix`) and all below it, parents first, each once. */
  *namedModules(prefix = "", seen: Set<AnyModule> = new Set()): Generator<[string, AnyModule]> {
    const self = this as unknown as AnyModule;
    if (seen.has(self)) return;
    seen.add(self);
    yield [prefix, self];
    for (const [name, child] of this.namedChildren()) yield* child.namedModules(join(prefix, name), seen);
  }

  /** All modules, parents first. */
  *modules(): Generator<AnyModule> {
    for (const [, module] of this.namedModules()) yield module;
  }

  /** Every parameter once, under its first name. */
  *namedParameters(): Generator<[string, Parameter]> {
    const seen = new Set<Parameter>();
    for (const [prefix, module] of this.namedModules()) {
      for (const [name, parameter] of module.ownParameters()) {
        if (seen.has(parameter)) continue;
        seen.add(parameter);
        yield [join(prefix, name), parameter];
      }
    }
  }

  /** Every parameter once. */
  parameters(): Parameter[] {
    return [...this.namedParameters()].map(([, parameter]) => parameter);
  }

  /** Sets every parameter's name to its name within this module, the root of the model. */
  nameParameters(): void {
    for (const [name, parameter] of this.namedParameters()) parameter.name = name;
  }

  /**
   * Puts the model on a device: every parameter that has no values yet is filled by its initialiser. Call it on the
   * root, after sharding: then each rank makes just its own part.
   */
  async to(device: Device): Promise<this> {
    this.nameParameters();
    for (const [, parameter] of this.namedParameters()) {
      if (!parameter.materialized) await parameter.materialize(device);
    }
    return this;
  }

  /** Frees the memory of all parameters and of their gradients. The model can be put on a device again, and starts anew. */
  dispose(): void {
    for (const parameter of this.parameters()) parameter.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Training mode, here and below. */
  train(mode = true): this {
    for (const module of this.modules()) module.training = mode;
    return this;
  }

  /** Evaluation mode, here and below. */
  eval(): this {
    return this.train(false);
  }

  /** Runs `body` inside the wrappers, the first of them innermost. */
  async #run(body: (args: readonly unknown[]) => unknown, args: readonly unknown[]): Promise<unknown> {
    const device = this.#deviceOf(args);
    const run = async (given: readonly unknown[]): Promise<unknown> => await body(given);
    let next = device === undefined ? run : (given: readonly unknown[]) => device.scope(() => run(given));
    for (const wrapper of this.#wrappers) {
      const inner = next;
      next = (given) => wrapper(given, inner);
    }
    return await next(args);
  }

  #deviceOf(args: readonly unknown[]): Device | undefined {
    for (const arg of args) if (arg instanceof Tensor && arg.hasDevice) return arg.device;
    for (const [, parameter] of this.namedParameters())
      return parameter.hasDevice ? parameter.device : undefined;
    return undefined;
  }
}

function join(prefix: string, name: string): string {
  return prefix === "" ? name : `${prefix}.${name}`;
}

/** Own properties in order; the items of arrays of modules or parameters as `name.index`. */
function* entries(module: object): Generator<[string, unknown]> {
  for (const [name, value] of Object.entries(module)) {
    if (Array.isArray(value)) for (const [i, item] of value.entries()) yield [`${name}.${i}`, item];
    else yield [name, value];
  }
}

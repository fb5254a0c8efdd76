/**
 * Methods beside `forward` that compute with a sharded module's parameters, as PyTorch's `register_fsdp_forward_method`.
 *
 * @module
 */
import type { AnyModule } from "../../core/nn/module.ts";

/** Names of a module's asynchronous methods. */
export type AsyncMethodName<M> = {
  [K in keyof M]: M[K] extends (...args: never[]) => Promise<unknown> ? K : never;
}[keyof M] &
  string;

/**
 * Lets `module[name]`, called as before, run as `call` does: the module's parameters are gathered before it and freed
 * after, and what it makes and does not return is freed. Harmless on a module that is not sharded.
 *
 * @throws ConfigError when the module has no such method.
 */
export function registerForwardMethod<M extends AnyModule>(module: M, name: AsyncMethodName<M>): void {
  module.wrapMethod(name);
}

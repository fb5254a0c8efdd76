/**
 * Handles: what can be seen of the flat parameters of a sharded model.
 *
 * @module
 */
import type { AnyModule } from "../../core/nn/module.ts";
import { numelOf } from "../../core/tensor/shape.ts";
import { unitsIn } from "./wrapped.ts";

/** One flat parameter. */
export interface FlatParameterHandle {
  /** Path of its unit's module; empty for the model itself. */
  readonly module: string;
  /** Names of the parameters in it, within that module, in their order. */
  readonly names: readonly string[];
  /** Elements, padding between parameters included, and what of them is padding. */
  readonly numel: number;
  readonly paddingNumel: number;
  /** Elements that each rank stores, padding included. */
  readonly shardNumel: number;
}

/** The flat parameters of a model that FSDP1 sharded, parents first; none for any other. */
export function flatParameterHandles(model: AnyModule): FlatParameterHandle[] {
  return unitsIn(model).map(({ prefix, unit: { parameters, layout, engine } }) => {
    const own = layout.parameters.reduce((sum, { shape }) => sum + numelOf(shape), 0);
    return {
      module: prefix.slice(0, -1),
      names: parameters.map(({ name }) => name),
      numel: layout.numel,
      paddingNumel: layout.numel - own,
      shardNumel: engine.shardNumel,
    };
  });
}

/**
 * Tracing: hears what the units of a model do.
 *
 * @module
 */
import type { AnyModule } from "../nn/module.ts";
import { unitsBelow } from "./sharded-modules.ts";
import type { UnitListener } from "./unit-events.ts";

/**
 * Tells `listener` what the units at and below `module` do, in order, in place of an earlier listener.
 *
 * @returns ends it.
 */
export function traceUnits(module: AnyModule, listener: UnitListener): () => void {
  const units = unitsBelow(module);
  for (const unit of units) unit.listener = listener;
  return () => {
    for (const unit of units) if (unit.listener === listener) unit.listener = undefined;
  };
}

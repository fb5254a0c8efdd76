/**
 * noSync: gradient accumulation without communication.
 *
 * @module
 */
import { setRequiresGradientSync } from "../../core/engine/shard-module.ts";
import { reshardAfterForwardOf } from "./strategy.ts";
import { idleRoot, type Wrapped } from "./wrapped.ts";

/**
 * Runs `body`, in which backward passes under the root reduce nothing. What stays gathered from forward to backward stays
 * from one pass to the next, as it does not change between them.
 *
 * @throws StateError when `root` is none, or inside a forward or backward pass.
 */
export async function withoutSync<T>(root: Wrapped, body: () => T | Promise<T>): Promise<T> {
  const below = idleRoot(root, "noSync()");
  const outer = root.syncing;
  const set = (sync: boolean): void => {
    root.syncing = sync;
    setRequiresGradientSync(root.module, sync);
    for (const { unit, plan, isRoot } of below) {
      if (unit === undefined) continue;
      const kept = isRoot || reshardAfterForwardOf(plan.strategy) === false;
      unit.engine.reshardAfterBackward = sync || !kept;
    }
  };
  set(false);
  try {
    return await body();
  } finally {
    set(outer);
  }
}

/**
 * The collectives of a step in worlds of other sizes than the one that was run: the same ones in the same order, of
 * slices that follow from the layouts alone. A layout of 16,384 ranks is arithmetic; a run of them plans every copy.
 *
 * @module
 */
import { unitsBelow } from "../../../core/engine/shard-module.ts";
import { Device } from "../../../core/tensor/device.ts";
import type { Call } from "./communication.ts";
import { countingBackend } from "./counting-backend.ts";
import { type DryModelInit, dryModel } from "./dry-model.ts";
import { dryRun, type Workload } from "./dry-run.ts";
import { applies, meshShape, type World } from "./strategies.ts";

/**
 * A step's collectives in each world; nothing where the strategy does not apply. FSDP2's are exact, and FSDP1's gathers; of
 * its reductions the padding between parameters is counted too, which does not travel. Versions that gather other bytes than
 * they store are near.
 */
export async function callsInWorlds(
  init: DryModelInit,
  workload: Workload,
  worlds: readonly World[],
): Promise<readonly (readonly Call[] | undefined)[]> {
  const { strategy, world } = init;
  // The order of a step does not depend on its tokens.
  const { calls } = await dryRun(init, { ...workload, batchSize: 1, seqLen: 1 });
  const from = shardNumels(init);
  return worlds.map((other) => {
    if (!applies(strategy, other)) return undefined;
    const to = shardNumels({ ...init, world: other });
    const ranksFrom = meshShape(strategy, world).at(-1)!;
    const ranksTo = meshShape(strategy, other).at(-1)!;
    return calls.map((call) => {
      const grown = call.unit === undefined ? 1 : to[call.unit]! / from[call.unit]!;
      if (call.kind === "allReduce" && call.unit !== undefined) {
        const ranks = strategy.hybrid === true ? meshShape(strategy, other)[0]! : other.worldSize;
        return { ...call, ranks, bytes: call.bytes * grown };
      }
      // Neighbours gather what all of them kept of the whole.
      if (call.ranks !== ranksFrom) return { ...call, bytes: (call.bytes * grown * ranksTo) / ranksFrom };
      return { ...call, ranks: ranksTo, bytes: call.bytes * grown };
    });
  });
}

/** Elements that a rank stores of every unit. */
function shardNumels(init: DryModelInit): readonly number[] {
  const model = dryModel(init, { host: new Device(countingBackend()) });
  return unitsBelow(model.module).map(({ shardNumel }) => shardNumel);
}

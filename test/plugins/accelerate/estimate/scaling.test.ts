import { describe, expect, test } from "bun:test";
import { registry } from "../../../../mod.ts";
import { dryRun, type Workload } from "../../../../plugins/accelerate/estimate/dry-run.ts";
import { chooseModel } from "../../../../plugins/accelerate/estimate/model-choice.ts";
import { callsInWorlds } from "../../../../plugins/accelerate/estimate/scaling.ts";
import { allStrategies, applies, smallestWorld } from "../../../../plugins/accelerate/estimate/strategies.ts";
import { fixture } from "../../../support/command.ts";

const WORKLOAD: Workload = { batchSize: 1, seqLen: 4, optimizer: "adamw", momentum: 0 };
/** Some cut the tiny models unevenly, some leave ranks without a part. */
const WORLDS = [2, 6, 16, 200].map((worldSize) => ({ worldSize, ranksPerNode: 2 }));

describe.each(["gpt2-tiny", "llama-tiny"])("the collectives of %s in another world", (name) => {
  for (const strategy of allStrategies(registry)) {
    test(`are those of a run there with ${strategy.name}`, async () => {
      const model = await chooseModel(registry, fixture(`${name}/model`));
      const init = { registry, model, strategy, world: smallestWorld(strategy, 2) };
      const predicted = await callsInWorlds(init, WORKLOAD, WORLDS);
      for (const [i, world] of WORLDS.entries()) {
        expect(predicted[i] !== undefined).toBe(applies(strategy, world));
        if (predicted[i] === undefined) continue;
        const { calls } = await dryRun({ registry, model, strategy, world }, WORKLOAD);
        const what = ({ bytes: _, ...call }: (typeof calls)[number]) => call;
        expect(predicted[i].map(what)).toEqual(calls.map(what));
        for (const [c, { kind, bytes }] of calls.entries()) {
          const guess = predicted[i][c]!.bytes;
          if (strategy.version === "fsdp2") expect(guess).toBeCloseTo(bytes, 6);
          // Of flat parameters, padding travels with parameters and not with gradients.
          else if (strategy.version === "fsdp1" && kind === "allGather") expect(guess).toBeCloseTo(bytes, 6);
          // Segments of several dtypes begin at multiples of 16 bytes, which is much of a part of so few.
          else expect(Math.abs(guess / bytes - 1)).toBeLessThan(world.worldSize > 16 ? 0.25 : 0.05);
        }
      }
    });
  }
});

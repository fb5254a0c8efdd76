import { expect, test } from "bun:test";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import { getModelStateDict } from "../../core/engine/model-state-dict.ts";
import { getOptimizerStateDict } from "../../core/engine/optimizer-state-dict.ts";
import { modelState, optimizerState } from "../../core/engine/sharded-state.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import { AdamW } from "../../core/optim/mod.ts";
import { FullyShardedDataParallel } from "../../plugins/fsdp1/mod.ts";
import { fullyShard } from "../../plugins/fsdp2/mod.ts";
import { runRanks, type TestRank } from "../support/ranks.ts";
import { forwardBackward, smallStack } from "../support/training.ts";

/** A model under each version, FSDP1's with one flat parameter in place of the model's own. */
const VERSIONS = {
  fsdp1: (rank: TestRank) => {
    const stack = smallStack();
    const { mesh } = rank;
    return { stack, model: new FullyShardedDataParallel(stack, { mesh, onWarning: () => {} }) as AnyModule };
  },
  fsdp2: (rank: TestRank) => {
    const stack = smallStack();
    return { stack, model: fullyShard(stack, { mesh: rank.mesh }) as AnyModule };
  },
};

/** Goes on from what there is, does a step, saves, and gives all that the state dicts hold. */
async function leg(
  rank: TestRank,
  version: keyof typeof VERSIONS,
  store: ReturnType<typeof memoryStore>,
  step: number,
) {
  const { stack, model } = VERSIONS[version](rank);
  await model.to(rank.device);
  const optimizer = new AdamW(model.parameters(), { lr: 0.01, weightDecay: 0.1 });
  const checkpointer = nativeCheckpointer(store);
  const { collective } = rank;
  const tensors = [...modelState(model, collective), ...optimizerState(model, optimizer, collective)];
  if (step > 1) await checkpointer.load({ tensors }, "latest", collective, { fit: "strict" });
  const full = { fullStateDict: true } as const;
  const read = async () => [
    await getModelStateDict(model, full),
    (await getOptimizerStateDict(model, optimizer, full)).state,
  ];
  const before = await read();
  const loss = await forwardBackward(rank, stack, step);
  optimizer.step();
  optimizer.zeroGrad();
  await checkpointer.save({ tensors, values: {}, rankValues: {} }, step, collective);
  return { before, after: await read(), loss, listed: model.parameters().length };
}

test("a model that lists flat parameters is saved and loaded by the names of its own, and crosses over to FSDP2 and back bitwise", async () => {
  const store = memoryStore("memory:flat");
  const legs = [];
  for (const [i, version] of (["fsdp1", "fsdp2", "fsdp1"] as const).entries()) {
    legs.push((await runRanks([3, 2, 4][i]!, (rank) => leg(rank, version, store, i + 1)))[0]!);
  }
  const names = [...smallStack().namedParameters()].map(([name]) => name);
  for (const { after } of legs)
    for (const dict of after) expect(Object.keys(dict).sort()).toEqual(names.sort());
  expect(legs.map(({ listed }) => listed)).toEqual([1, names.length, 1]);
  for (const [i, { before }] of legs.entries()) if (i > 0) expect(before).toEqual(legs[i - 1]!.after);
});

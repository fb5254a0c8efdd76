import { expect, test } from "bun:test";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { fixture } from "../support/command.ts";
import { runRanks } from "./ranks.ts";
import { cutBox, dimZero, emptyState, patternTensor } from "./states.ts";

/** What the fixtures of every version hold. */
const TENSORS = [
  patternTensor("model.w", "float32", [5, 3]),
  patternTensor("model.b", "bfloat16", [3]),
  patternTensor("optim.step", "float32", []),
  patternTensor("none", "int64", [0, 2]),
];

test.each(["checkpoint-v1", "checkpoint-v2"])("a checkpoint as %s has it is read for good", async (name) => {
  const checkpointer = nativeCheckpointer(directoryStore(fixture(name)));
  expect(await checkpointer.list()).toMatchObject([
    { name: "step-00000007", step: 7, worldSize: 2, createdAt: 1_700_000_000_000 },
  ]);
  expect(await checkpointer.verify("step-00000007")).toEqual([]);
  await runRanks(3, async (collective) => {
    const { state, filled } = emptyState(TENSORS, dimZero(3), collective.rank);
    const loaded = await checkpointer.load(state, "latest", collective, { fit: "strict" });
    for (const { tensor, box, bytes } of filled) expect(bytes).toEqual(cutBox(tensor, box));
    expect(loaded.values).toEqual({ lr: 0.5, list: [null, "x"] });
    expect(loaded.rankValues).toEqual([{ rank: 0 }, { rank: 1 }]);
  });
});

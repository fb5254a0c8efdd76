/**
 * Run by `race.test.ts`, several at once: `ROOT LABEL`. Saves steps 1 to 8 over two ranks, and prints of each whether it was
 * the one that committed it, or why not.
 *
 * @module
 */
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { settleRanks } from "./ranks.ts";
import { dimZero, patternTensor, shardedState } from "./states.ts";

const [root, label] = process.argv.slice(2);
const checkpointer = nativeCheckpointer(directoryStore(root!));
const tensors = [patternTensor(label!, "float32", [9])];
for (let step = 1; step <= 8; step++) {
  const results = await settleRanks(2, (collective) =>
    checkpointer.save(shardedState(tensors, dimZero(2), collective.rank), step, collective),
  );
  const said = results.map((result) => (result.status === "fulfilled" ? "won" : result.reason.message));
  console.log(JSON.stringify(said));
}

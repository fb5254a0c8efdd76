/**
 * Run by Deno in `deno.test.ts`: a save of two ranks over HTTP, and a load by three. The location is the argument. Prints
 * one line of JSON.
 *
 * @module
 */
import process from "node:process";
import { nativeCheckpointer } from "../../../../checkpoint/checkpointer.ts";
import { openHttpStore } from "../../../../checkpoint/stores/http/store.ts";
import { runRanks } from "../../ranks.ts";
import { cutBox, dimZero, emptyState, patternTensor, shardedState } from "../../states.ts";

const tensors = [patternTensor("w", "float32", [700, 500]), patternTensor("s", "int64", [])];
const store = openHttpStore(process.argv[2]!)!;
const checkpointer = nativeCheckpointer(store, { now: () => 0 });
const save = (step: number) =>
  runRanks(2, (collective) =>
    checkpointer.save(shardedState(tensors, dimZero(2), collective.rank), step, collective),
  );
await save(1);
const taken = await save(1).catch((error: Error) => error.message);
const matches = await runRanks(3, async (collective) => {
  const { state, filled } = emptyState(tensors, dimZero(3), collective.rank);
  await checkpointer.load(state, "latest", collective);
  return filled.every(({ tensor, box, bytes }) => cutBox(tensor, box).every((byte, i) => byte === bytes[i]));
});
const faults = await checkpointer.verify("step-00000001");
await save(2);
await checkpointer.delete("step-00000001");
const left = await checkpointer.list();
console.log(JSON.stringify({ taken, matches, faults, left: left.map(({ name }) => name) }));

/**
 * Run by `interrupted.test.ts`, which kills it: starts a save of step 2 whose second piece never comes. Says so once the
 * first bytes are on their way.
 *
 * @module
 */
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { runRanks } from "./ranks.ts";
import { patternTensor, replicated, shardedState } from "./states.ts";

const state = shardedState(
  [patternTensor("a", "float64", [9]), patternTensor("b", "float32", [9])],
  replicated,
  0,
);
const stuck = {
  ...state,
  tensors: state.tensors.map((tensor) => ({
    ...tensor,
    pieces: tensor.pieces.map((piece) => ({
      ...piece,
      read: () => {
        if (tensor.name === "a") return piece.read();
        console.log("writing");
        return new Promise<never>(() => undefined);
      },
    })),
  })),
};
// Keeps the process alive while nothing happens.
setInterval(() => undefined, 1000);
await runRanks(1, (collective) =>
  nativeCheckpointer(directoryStore(process.argv[2]!)).save(stuck, 2, collective),
);

/**
 * The transport "local": all ranks of a job in this event loop.
 *
 * @module
 */
import type { LaunchOptions, RankJob, RankProgram, Transport } from "../../../core/contracts/transport.ts";
import { runInProcess } from "../in-process.ts";
import { localWorld } from "./group.ts";

/** Runs every rank as an async function of this event loop; they share the program's module. */
export const localTransport: Transport = {
  name: "local",
  launch(program: RankProgram, options: LaunchOptions): RankJob {
    return runInProcess(program, options, localWorld(options.worldSize));
  },
};

/**
 * The thread of one rank: runs the program, says how it ended, and goes when the launcher has heard.
 *
 * @module
 */
import process from "node:process";
import { parentPort, workerData } from "node:worker_threads";
import type { RankContext } from "../../../core/contracts/transport.ts";
import { threadIsKept } from "../../../core/runtime/runtime.ts";
import { loadProgram } from "../program.ts";
import { toRemoteError } from "../remote-error.ts";
import { threadsCollective } from "./collective.ts";
import type { RankMessage, RankStart } from "./messages.ts";
import { RankWorld } from "./rank-world.ts";

/** How long timers and the like of a program may delay the end of its thread, in milliseconds. */
const LINGER = 300;

const start: RankStart = workerData;
const port = parentPort!;
const world = new RankWorld(start.rank, start.shared);
let ended = false;

process.on("uncaughtException", failed);
process.on("unhandledRejection", failed);
// As long as it is listened to, the port keeps the thread alive; the only message is LEAVE.
port.once("message", () => {
  setTimeout(() => process.exit(0), LINGER).unref();
});
run()
  .then((result) => end({ kind: "done", result, kept: threadIsKept() }), failed)
  .catch(failed);

async function run(): Promise<unknown> {
  const program = await loadProgram(start.program);
  const collective = threadsCollective(world, start.group);
  const context: RankContext = {
    rank: start.rank,
    worldSize: world.size,
    collective,
    hostMemory: start.shared.ranks[start.rank]!.host,
    localWorldSize: world.size,
    stopRequested: () => world.control.stopRequested,
    report: (message) => send({ kind: "report", message }),
  };
  // Cloned here and not only on its way: a result that cannot be is this rank's failure, not a group that was left.
  const result = structuredClone(await program(context, start.program.args));
  await collective.close();
  return result;
}

function failed(thrown: unknown): void {
  const error = toRemoteError(thrown);
  world.fail(error.message);
  end({ kind: "failed", error, kept: threadIsKept() });
}

function end(message: RankMessage): void {
  if (ended) return;
  send(message);
  ended = true;
}

function send(message: RankMessage): void {
  port.postMessage(message);
}

/**
 * Runs a rank program from the command line: starts the ranks, turns Ctrl-C into an orderly stop.
 *
 * @module
 */
import process from "node:process";
import { type Registry, TRANSPORT } from "../../core/contracts/plugin.ts";
import { rankProgram } from "../../core/runtime/rank-program.ts";
import type { PlaceConfig } from "./config.ts";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;
/** What a shell expects of a program that Ctrl-C ended. */
export const INTERRUPTED = 130;

/** What to do while ranks run. */
export interface SuperviseOptions {
  onMessage?(rank: number, message: unknown): void;
  /** The first Ctrl-C: ranks were asked to stop after their step. */
  onStop?(): void;
}

/**
 * Runs the registered program `name` on every rank and returns the ranks' results. The first SIGINT or SIGTERM asks
 * them to stop after their step, the second ends the process at once.
 *
 * @throws the first failing rank's error.
 */
export async function superviseRanks(
  registry: Registry,
  name: string,
  args: unknown,
  place: PlaceConfig,
  options: SuperviseOptions = {},
): Promise<readonly unknown[]> {
  const transport = registry.get(TRANSPORT, place.collective);
  const { onMessage } = options;
  const job = transport.launch(rankProgram(registry, name, args), {
    worldSize: place.worldSize,
    ...(onMessage === undefined ? {} : { onMessage }),
  });
  let asked = false;
  const stop = () => {
    if (asked) process.exit(INTERRUPTED);
    asked = true;
    job.requestStop();
    options.onStop?.();
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    return await job.results;
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}

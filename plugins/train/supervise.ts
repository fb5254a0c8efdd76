/**
 * Runs a rank program from the command line: starts the ranks, turns Ctrl-C into an orderly stop.
 *
 * @module
 */
import { type Registry, TRANSPORT } from "../../core/contracts/plugin.ts";
import { whileInterruptible } from "../../core/runtime/interrupt.ts";
import type { Place } from "../../core/runtime/place.ts";
import { rankProgram } from "../../core/runtime/rank-program.ts";

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
  place: Place,
  options: SuperviseOptions = {},
): Promise<readonly unknown[]> {
  const transport = registry.get(TRANSPORT, place.collective);
  const { onMessage } = options;
  const job = transport.launch(rankProgram(registry, name, args), {
    worldSize: place.worldSize,
    ...(onMessage === undefined ? {} : { onMessage }),
  });
  const stop = () => {
    job.requestStop();
    options.onStop?.();
  };
  return await whileInterruptible(stop, () => job.results);
}

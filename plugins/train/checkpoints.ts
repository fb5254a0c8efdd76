/**
 * Where a run's checkpoints are, by what the command line says.
 *
 * @module
 */
import { basename, dirname } from "node:path";
import type { Checkpointer, CheckpointerOptions } from "../../core/contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../../core/contracts/errors.ts";
import { CHECKPOINTER, type Registry, STORE } from "../../core/contracts/plugin.ts";

/** Opens the checkpoints of a run. @throws ConfigError when no store takes the location. */
export function openCheckpoints(
  registry: Registry,
  location: string,
  options?: CheckpointerOptions,
): Checkpointer {
  for (const name of registry.names(STORE)) {
    const store = registry.get(STORE, name)(location);
    if (store !== undefined) return registry.get(CHECKPOINTER, "native")(store, options);
  }
  throw new ConfigError(
    `cannot use checkpoints at "${location}": no store takes it, there are ${registry.names(STORE).join(", ")}`,
  );
}

/** One checkpoint of a run. */
export interface CheckpointPlace {
  readonly location: string;
  readonly name: string;
  /** Newer ones whose manifest cannot be read, and why. */
  readonly damaged?: readonly string[];
}

/**
 * The checkpoint that a path means: the newest of a run's folder, or the one whose own folder it is.
 *
 * @param option what gave the path, for messages.
 * @throws CheckpointError when there is none.
 */
export async function findCheckpoint(
  registry: Registry,
  path: string,
  option: string,
): Promise<CheckpointPlace> {
  const unreadable = new Map<string, string>();
  const onDamaged = (name: string, problem: string) => void unreadable.set(name, problem);
  const newest = (await openCheckpoints(registry, path).list({ onDamaged })).at(-1);
  if (newest !== undefined) {
    const damaged = [...unreadable].filter(([name]) => name > newest.name).map(([, problem]) => problem);
    return { location: path, name: newest.name, damaged };
  }
  const [parent, name] = [dirname(path), basename(path)];
  const there = await openCheckpoints(registry, parent).list();
  if (there.some((info) => info.name === name)) return { location: parent, name, damaged: [] };
  const why = [...unreadable.values()].map((problem) => ` (${problem})`).join("");
  throw new CheckpointError(
    `cannot use ${option}: given "${path}", where there is no complete checkpoint of this project${why}, other formats are converted first: convert "${path}" RUN --to native`,
  );
}

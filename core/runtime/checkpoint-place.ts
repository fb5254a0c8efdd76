/**
 * Where checkpoints are, by what a path or URL means: the stores and the checkpoint format are those of the registry.
 *
 * @module
 */
import { basename, dirname } from "node:path";
import type { Checkpointer, CheckpointerOptions, CheckpointStore } from "../contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../contracts/errors.ts";
import { CHECKPOINTER, type Registry, STORE } from "../contracts/plugin.ts";

/** One checkpoint. */
export interface CheckpointPlace {
  /** Of the store that holds it. */
  readonly location: string;
  readonly name: string;
  /** Newer ones whose manifest cannot be read, and why. */
  readonly damaged?: readonly string[];
}

/** Opens the store that takes a location; `undefined` when none does. */
export function storeAt(registry: Registry, location: string): CheckpointStore | undefined {
  for (const name of registry.names(STORE)) {
    const store = registry.get(STORE, name)(location);
    if (store !== undefined) return store;
  }
  return undefined;
}

/** The store that holds the location, and its name there; `undefined` when nothing is above it: a service's run, for one. */
export function storeAbove(
  registry: Registry,
  location: string,
): { readonly store: CheckpointStore; readonly parent: string; readonly name: string } | undefined {
  const [parent, name] = [dirname(location), basename(location)];
  if (parent === location) return undefined;
  try {
    const store = storeAt(registry, parent);
    return store && { store, parent, name };
  } catch (error) {
    if (error instanceof ConfigError) return undefined;
    throw error;
  }
}

/** Opens the store of a location. @throws ConfigError when none takes it. */
export function openStore(registry: Registry, location: string): CheckpointStore {
  const store = storeAt(registry, location);
  if (store !== undefined) return store;
  throw new ConfigError(
    `cannot use checkpoints at "${location}": no store takes it, there are ${registry.names(STORE).join(", ")}`,
  );
}

/** Opens the checkpoints of a run. @throws ConfigError when no store takes the location. */
export function openCheckpoints(
  registry: Registry,
  location: string,
  options?: CheckpointerOptions,
): Checkpointer {
  return registry.get(CHECKPOINTER, "native")(openStore(registry, location), options);
}

/**
 * The checkpoint that a location means: the newest one there, or the one whose own location it is.
 *
 * @param what what was to be done, for messages.
 * @throws CheckpointError when there is none.
 */
export async function findCheckpoint(
  registry: Registry,
  location: string,
  what: string,
): Promise<CheckpointPlace> {
  const unreadable = new Map<string, string>();
  const onDamaged = (name: string, problem: string) => void unreadable.set(name, problem);
  const newest = (await openCheckpoints(registry, location).list({ onDamaged })).at(-1);
  if (newest !== undefined) {
    const damaged = [...unreadable].filter(([name]) => name > newest.name).map(([, problem]) => problem);
    return { location, name: newest.name, damaged };
  }
  const above = storeAbove(registry, location);
  if (above !== undefined && (await above.store.list()).includes(above.name)) {
    return { location: above.parent, name: above.name };
  }
  const why = [...unreadable.values()].map((problem) => ` (${problem})`).join("");
  throw new CheckpointError(
    `cannot ${what}: given "${location}", where there is no complete checkpoint of this project${why}; ` +
      `other formats are converted first: convert "${location}" RUN --to native`,
  );
}

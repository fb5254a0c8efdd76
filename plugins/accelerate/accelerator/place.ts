/**
 * Where an accelerator runs: as the rank that `launch` started, or alone; on that rank's device or one of its own.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import { BACKEND, type Registry } from "../../../core/contracts/plugin.ts";
import type { RankContext } from "../../../core/contracts/transport.ts";
import { currentRank, isLaunched } from "../../../core/runtime/current-rank.ts";
import { createHostDevice } from "../../../core/runtime/host-device.ts";
import { Device } from "../../../core/tensor/device.ts";
import { becomeLoneRank } from "./alone.ts";

/** A rank and its devices. */
export interface AcceleratorPlace {
  readonly context: RankContext;
  readonly device: Device;
  /** Keeps shards that do not stay where the model computes. */
  readonly host: Device | undefined;
  /** Disposes what was made for the accelerator. */
  close(): Promise<void>;
}

/** What is asked of a place. */
export interface PlaceOptions {
  /** Registered backend. Default: the rank's, else `"cpu"`. */
  readonly backend?: string | undefined;
  readonly backendSettings?: Readonly<Record<string, string>> | undefined;
  /** Default: the launcher's, else 0. */
  readonly seed?: number | undefined;
  /** Whether shards are kept in host memory. */
  readonly offload: boolean;
}

/** Finds or makes a place. @throws PluginError for an unknown backend, ConfigError for a bad seed. */
export async function findPlace(registry: Registry, options: PlaceOptions): Promise<AcceleratorPlace> {
  const { backend, backendSettings, seed } = options;
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    throw new ConfigError(
      `cannot create an Accelerator: given a seed of ${seed}, allowed are integers from 0`,
    );
  }
  if (backend !== undefined) registry.get(BACKEND, backend);
  const closing: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const end of closing.splice(0).reverse()) await end();
  };
  try {
    const launched = isLaunched() ? currentRank() : undefined;
    let context: RankContext;
    if (launched !== undefined) context = launched;
    else {
      const lone = await becomeLoneRank(registry);
      closing.push(lone.end);
      context = lone.context;
    }
    const fits = backend === undefined || backend === launched?.device.backend.name;
    let device = fits && backendSettings === undefined ? launched?.device : undefined;
    if (device === undefined) {
      const { rank, localWorldSize, hostMemory } = context;
      const made = await registry.get(BACKEND, backend ?? launched?.device.backend.name ?? "cpu").create({
        rank,
        localWorldSize,
        // A launched rank's is its own device's.
        hostMemory: launched === undefined ? hostMemory : undefined,
        settings: backendSettings,
      });
      closing.push(() => made.dispose());
      device = new Device(made, { seed: seed ?? launched?.device.seed ?? 0, rank });
    }
    if (seed !== undefined) device.seed = seed;
    const host = options.offload ? await createHostDevice(registry, context, device.seed) : undefined;
    if (host !== undefined) closing.push(() => host.backend.dispose());
    return { context, device, host, close };
  } catch (error) {
    await close();
    throw error;
  }
}

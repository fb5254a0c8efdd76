/**
 * Runs a user's own function as the ranks of a job, each with a device and a mesh at hand.
 *
 * @module
 */
import * as v from "valibot";
import { ConfigError } from "../contracts/errors.ts";
import { BACKEND, type Plugin, PROGRAM, type Registry, TRANSPORT } from "../contracts/plugin.ts";
import type { RankContext, RankFunction } from "../contracts/transport.ts";
import { Device } from "../tensor/device.ts";
import { type DeviceMesh, initDeviceMesh } from "./device-mesh.ts";
import { rankProgram } from "./rank-program.ts";

/** What a launched function is given. */
export interface Rank extends RankContext {
  /** This rank's device. */
  readonly device: Device;
  /** All ranks in one dimension. */
  readonly mesh: DeviceMesh;
}

/** Options of `launch`. */
export interface LaunchScriptOptions {
  /** Number of ranks. Default 1. */
  readonly worldSize?: number;
  /** Registered backend. Default `"cpu"`. */
  readonly backend?: string;
  /** Settings of the backend. */
  readonly backendSettings?: Readonly<Record<string, string>>;
  /** How ranks run and exchange data. Default `"threads"`. */
  readonly collective?: string;
  /** Seed of weights, data and dropout, the same on every rank. Default 0. */
  readonly seed?: number;
  /** Name of the exported function. Default `"main"`. */
  readonly export?: string;
  /** Second argument of the function; structured-cloneable. */
  readonly args?: unknown;
  /** What ranks send with `report`. */
  onMessage?(rank: number, message: unknown): void;
}

const PROGRAM_NAME = "launch";

const ScriptArgs = v.strictObject({
  module: v.string(),
  export: v.string(),
  backend: v.string(),
  settings: v.record(v.string(), v.string()),
  seed: v.number(),
  args: v.optional(v.unknown()),
});

/**
 * Imports `module` in every rank and calls its exported function `(rank: Rank, args) => Promise<result>` there.
 *
 * @param module the URL of the script, usually its own `import.meta.url`; ranks import it too, so what only the
 * launching script should do stands behind `if (import.meta.main)`.
 * @returns the ranks' results, in rank order.
 * @throws the first failing rank's error. ConfigError when the module has no such function.
 */
export async function launchScript(
  registry: Registry,
  module: string,
  options: LaunchScriptOptions = {},
): Promise<readonly unknown[]> {
  const backend = options.backend ?? "cpu";
  registry.get(BACKEND, backend);
  const transport = registry.get(TRANSPORT, options.collective ?? "threads");
  const args: v.InferOutput<typeof ScriptArgs> = {
    module,
    export: options.export ?? "main",
    backend,
    settings: { ...options.backendSettings },
    seed: options.seed ?? 0,
    args: options.args,
  };
  const { onMessage } = options;
  const job = transport.launch(rankProgram(registry, PROGRAM_NAME, args), {
    worldSize: options.worldSize ?? 1,
    ...(onMessage === undefined ? {} : { onMessage }),
  });
  return await job.results;
}

/** Registers the program that `launchScript` runs. */
export const launchPlugin: Plugin = Object.freeze<Plugin>({
  name: "launch",
  setup: (registry) => registry.register(PROGRAM, PROGRAM_NAME, runScript(registry)),
});

function runScript(registry: Registry): RankFunction {
  return async (context, raw) => {
    const { module, export: name, backend, settings, seed, args } = v.parse(ScriptArgs, raw);
    const found: unknown = ((await import(module)) as Readonly<Record<string, unknown>>)[name];
    if (typeof found !== "function") {
      throw new ConfigError(`cannot launch "${module}": it exports no function "${name}"`);
    }
    const { hostMemory, localWorldSize, rank } = context;
    const made = await registry.get(BACKEND, backend).create({ hostMemory, localWorldSize, rank, settings });
    try {
      const device = new Device(made, { seed, rank });
      const mesh = await initDeviceMesh(context.collective);
      return await (found as (rank: Rank, args: unknown) => unknown)({ ...context, device, mesh }, args);
    } finally {
      await made.dispose();
    }
  };
}

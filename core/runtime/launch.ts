/**
 * Runs a user's own script as the ranks of a job, each with a device and a mesh at hand.
 *
 * @module
 */
import process from "node:process";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { ConfigError } from "../contracts/errors.ts";
import { BACKEND, type Plugin, PROGRAM, type Registry, TRANSPORT } from "../contracts/plugin.ts";
import type { RankContext, RankFunction, RankJob } from "../contracts/transport.ts";
import { Device } from "../tensor/device.ts";
import { asRank } from "./current-rank.ts";
import { type DeviceMesh, initDeviceMesh } from "./device-mesh.ts";
import { rankProgram } from "./rank-program.ts";

/** What a launched script is given, as its function's argument or by `currentRank()`. */
export interface Rank extends RankContext {
  /** This rank's device. */
  readonly device: Device;
  /** All ranks in one dimension. */
  readonly mesh: DeviceMesh;
  /** What the launcher was told by config files and options, as it passed it on; libraries read it. */
  readonly settings: unknown;
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
  /** `Rank.settings`; structured-cloneable. */
  readonly settings?: unknown;
  /** What ranks send with `report`. */
  onMessage?(rank: number, message: unknown): void;
}

/** How the command line runs a script. */
export interface StartScriptOptions extends LaunchScriptOptions {
  /** The script's own arguments: what `process.argv` has after its name. A script without the function is then one whose top level is the run. */
  readonly argv?: readonly string[];
}

/** A script that runs. */
export interface ScriptJob extends RankJob {
  /** Whether some rank has looked at `stopRequested`: then it can be asked to stop. */
  heedsStop(): boolean;
}

const PROGRAM_NAME = "launch";

const ScriptArgs = v.strictObject({
  module: v.string(),
  export: v.string(),
  backend: v.string(),
  backendSettings: v.record(v.string(), v.string()),
  seed: v.number(),
  argv: v.optional(v.array(v.string())),
  args: v.optional(v.unknown()),
  settings: v.optional(v.unknown()),
});

/** What ranks send: the script's own messages, and that it heeds requests to stop. */
type ScriptMessage = { readonly kind: "message"; readonly message: unknown } | { readonly kind: "heeds" };

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
  return await startScript(registry, module, options).results;
}

/** Starts a script's ranks. @throws PluginError for an unknown backend or collective. */
export function startScript(registry: Registry, module: string, options: StartScriptOptions): ScriptJob {
  const backend = options.backend ?? "cpu";
  registry.get(BACKEND, backend);
  const transport = registry.get(TRANSPORT, options.collective ?? "threads");
  const args: v.InferOutput<typeof ScriptArgs> = {
    module,
    export: options.export ?? "main",
    backend,
    backendSettings: { ...options.backendSettings },
    seed: options.seed ?? 0,
    argv: options.argv === undefined ? undefined : [...options.argv],
    args: options.args,
    settings: options.settings,
  };
  let heeds = false;
  const job = transport.launch(rankProgram(registry, PROGRAM_NAME, args), {
    worldSize: options.worldSize ?? 1,
    onMessage: (rank, raw) => {
      const message = raw as ScriptMessage;
      if (message.kind === "heeds") heeds = true;
      else options.onMessage?.(rank, message.message);
    },
  });
  return {
    results: job.results,
    requestStop: () => job.requestStop(),
    kill: () => job.kill(),
    heedsStop: () => heeds,
  };
}

/** Registers the program that `launchScript` runs. */
export const launchPlugin: Plugin = Object.freeze<Plugin>({
  name: "launch",
  setup: (registry) => registry.register(PROGRAM, PROGRAM_NAME, runScript(registry)),
});

function runScript(registry: Registry): RankFunction {
  return async (context, raw) => {
    const script = v.parse(ScriptArgs, raw);
    const { hostMemory, localWorldSize, rank: index } = context;
    const made = await registry
      .get(BACKEND, script.backend)
      .create({ hostMemory, localWorldSize, rank: index, settings: script.backendSettings });
    try {
      const device = new Device(made, { seed: script.seed, rank: index });
      const mesh = await initDeviceMesh(context.collective);
      const rank: Rank = { ...scriptContext(context), device, mesh, settings: script.settings };
      return await asRank(rank, () => runAs(rank, script));
    } finally {
      await made.dispose();
    }
  };
}

/** Scripts whose top level is the run, and has begun in this module graph. */
const begun = new Set<string>();

/** Calls the script's function; without one, importing the script has run it. */
async function runAs(rank: Rank, script: v.InferOutput<typeof ScriptArgs>): Promise<unknown> {
  const { module, export: name, argv, args } = script;
  if (argv !== undefined) process.argv.splice(1, process.argv.length, fileURLToPath(module), ...argv);
  const again = begun.has(module);
  begun.add(module);
  const found: unknown = ((await import(module)) as Readonly<Record<string, unknown>>)[name];
  if (typeof found === "function") return await (found as (rank: Rank, args: unknown) => unknown)(rank, args);
  if (argv === undefined)
    throw new ConfigError(`cannot launch "${module}": it exports no function "${name}"`);
  if (again) {
    throw new ConfigError(
      `cannot launch "${module}": it exports no function "${name}", and ${rank.collective.name} ranks import a script once together, allowed is --collective threads`,
    );
  }
  return undefined;
}

/** The context with its messages marked as the script's own. */
function scriptContext(context: RankContext): RankContext {
  const send = (message: ScriptMessage) => context.report(message);
  let heeds = false;
  return {
    ...context,
    report: (message) => send({ kind: "message", message }),
    stopRequested: () => {
      if (!heeds) send({ kind: "heeds" });
      heeds = true;
      return context.stopRequested();
    },
  };
}

/**
 * The command `launch`: any script as the ranks of a job, as torchrun and `accelerate launch` do it.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { CommandContext, CommandSpec } from "../../core/contracts/command.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { INTERRUPTED, whileInterruptible } from "../../core/runtime/interrupt.ts";
import { type ScriptJob, startScript } from "../../core/runtime/launch.ts";
import { quoted } from "../../core/runtime/names.ts";
import { PLACE_OPTIONS } from "../../core/runtime/place.ts";
import { COMMAND_OPTIONS } from "./config/command-options.ts";
import { packSettings } from "./config/launch-settings.ts";
import { readConfig } from "./config/read-config.ts";
import { TRAINING_OPTIONS } from "./config/training-options.ts";

/** Runs a script as N ranks. */
export const launchCommand: CommandSpec = {
  summary: "runs a script as the ranks of a job; what follows SCRIPT is the script's",
  positionals: "SCRIPT [ARGS...]",
  passThrough: true,
  options: {
    ...PLACE_OPTIONS,
    ...COMMAND_OPTIONS,
    ...TRAINING_OPTIONS,
    seed: {
      type: "integer",
      min: 0,
      max: 2 ** 32 - 1,
      default: 0,
      description: "seed of weights and dropout, the same on every rank",
    },
    "use-fsdp": { type: "boolean", description: "as Accelerate's, which it does anyway" },
  },
  run: async (given) => {
    const context = takeRanksBehindScript(given);
    const [path, ...argv] = context.positionals;
    const module = scriptUrl(path!);
    const config = await readConfig(context);
    for (const note of config.notes) context.printError(note);
    const { place, sharding } = config;
    const job = startScript(context.registry, module, {
      ...place,
      seed: Number(context.options.seed),
      argv,
      args: argv,
      ...(config.mainFunction === undefined ? {} : { export: config.mainFunction }),
      settings: packSettings({
        fsdp: config.given,
        versionSettings: sharding.settings,
        mixedPrecision: config.mixedPrecision,
        gradientAccumulationSteps: config.accumulation,
        replicas: sharding.replicas,
      }),
    });
    return await supervise(context, job);
  },
};

/** Waits for the ranks. Returns the exit code. */
async function supervise(context: CommandContext, job: ScriptJob): Promise<number> {
  let stopped = false;
  const stop = () => {
    stopped = true;
    if (!job.heedsStop()) return void job.kill();
    context.printError("stopping when the script does; once more to stop at once");
    job.requestStop();
  };
  try {
    await whileInterruptible(stop, () => job.results);
  } catch (error) {
    if (!stopped) context.printError(stackOf(error));
    return stopped ? INTERRUPTED : 1;
  }
  return stopped ? INTERRUPTED : 0;
}

/** The error of a user's script: its message names the rank, its frames say where. */
function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? `${error.name}: ${error.message}`) : String(error);
}

/** @throws ConfigError when there is no such file. */
function scriptUrl(path: string): string {
  const file = resolve(path);
  if (!existsSync(file)) throw new ConfigError(`cannot launch ${quoted(path)}: there is no such file`);
  return pathToFileURL(file).href;
}

/** `SCRIPT --nproc N`: the number of ranks may also stand right behind the script, if it does not stand before it. */
function takeRanksBehindScript(context: CommandContext): CommandContext {
  const [script, flag = "", value, ...rest] = context.positionals;
  const [name, inline] = flag.split("=", 2);
  if (name !== "--nproc" || context.given.has("world-size")) return context;
  const text = inline ?? value ?? "";
  const ranks = /^\d+$/.test(text) ? Number(text) : 0;
  if (ranks < 1 || ranks > 65536) {
    throw new ConfigError(
      `invalid value for option "--nproc" of "launch": given ${quoted(text)}, allowed are integers from 1 to 65536`,
    );
  }
  const args = inline === undefined ? rest : [value, ...rest].filter((word) => word !== undefined);
  return {
    ...context,
    options: { ...context.options, "world-size": ranks },
    given: new Set([...context.given, "world-size"]),
    positionals: [script!, ...args],
  };
}

/**
 * A training run as whoever launched it sees it: progress, the log, the figures in the end.
 *
 * @module
 */
import { type FileHandle, open } from "node:fs/promises";
import type { CommandContext } from "../../core/contracts/command.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { formatBytes, formatCount, formatDuration } from "../../core/runtime/format.ts";
import type { TrainConfig } from "./config.ts";
import { createProgress } from "./progress.ts";
import { superviseRanks } from "./supervise.ts";
import type { TrainMessage, TrainResult } from "./train-messages.ts";

/** What a finished or stopped run gives. */
export interface TrainOutcome {
  /** Rank 0's. */
  readonly result: TrainResult;
  readonly losses: { readonly first: number; readonly last: number } | undefined;
  /** Median over steps, of all ranks. */
  readonly tokensPerSecond: number;
  /** Seconds from launch to end. */
  readonly seconds: number;
  /** Name of the last checkpoint that was committed in this run. */
  readonly checkpoint: string | undefined;
}

/** Runs a configured training and shows how it goes. */
export async function runTraining(
  context: CommandContext,
  config: TrainConfig,
  logPath: string | undefined,
): Promise<TrainOutcome> {
  const json = context.options.json === true;
  const log = logPath === undefined ? undefined : await openLog(logPath, config.resume !== undefined);
  let progress: ReturnType<typeof createProgress> | undefined;
  const rates: number[] = [];
  let first: number | undefined;
  let last = 0;
  let checkpoint: string | undefined;
  let writing: Promise<unknown> = Promise.resolve();
  const began = performance.now();

  const onMessage = (_rank: number, raw: unknown) => {
    const message = raw as TrainMessage;
    if (message.kind === "start") {
      progress = createProgress({ steps: config.steps, firstStep: message.firstStep, json });
      const { version } = config.fsdp;
      progress.note(
        `${formatCount(message.parameters)} parameters, ${version.replace(/^fsdp(?=\d+$)/, "FSDP")} over ${config.place.worldSize} ranks (${config.place.collective}), ${message.device}`,
      );
      for (const problem of config.resume?.damaged ?? []) progress.note(`passed over: ${problem}`);
      if (message.firstStep > 0) progress.note(`resumed after step ${message.firstStep}`);
    } else if (message.kind === "evaluated") {
      progress?.note(`held-out loss ${message.loss.toFixed(4)}`);
    } else if (message.kind === "saved") {
      checkpoint = message.name;
      progress?.note(
        `saved ${message.name}: ${formatBytes(message.bytes)} in ${formatDuration(message.seconds)}`,
      );
    } else if (message.kind === "save-failed") {
      progress?.note(`step ${message.step} is not saved, training goes on: ${message.problem}`);
    } else if (message.kind === "retention-failed") {
      progress?.note(`old checkpoints were not deleted: ${message.problem}`);
    } else {
      first ??= message.loss;
      last = message.loss;
      rates.push(message.tokensPerSecond);
      const { step, loss, gradNorm, lr, tokensPerSecond, memory } = message;
      progress?.update({ step, loss, tokensPerSecond, memory: message.peakMemory });
      const line = {
        step,
        loss,
        grad_norm: gradNorm ?? null,
        lr,
        tokens_per_second: tokensPerSecond,
        memory,
      };
      if (log !== undefined) writing = writing.then(() => log.appendFile(`${JSON.stringify(line)}\n`));
    }
  };
  try {
    const onStop = () => progress?.note("stopping after this step; once more to stop at once");
    const results = await superviseRanks(context.registry, "train", config, config.place, {
      onMessage,
      onStop,
    });
    await writing;
    rates.sort((a, b) => a - b);
    return {
      result: results[0] as TrainResult,
      losses: first === undefined ? undefined : { first, last },
      tokensPerSecond: rates[Math.floor(rates.length / 2)] ?? 0,
      seconds: (performance.now() - began) / 1000,
      checkpoint,
    };
  } finally {
    progress?.close();
    await log?.close();
  }
}

async function openLog(path: string, append: boolean): Promise<FileHandle> {
  try {
    return await open(path, append ? "a" : "w");
  } catch (error) {
    throw new ConfigError(
      `cannot use --log: "${path}" cannot be written (${(error as NodeJS.ErrnoException).code})`,
    );
  }
}

/** The rows of the summary: a name and a value each. */
export function summaryRows(config: TrainConfig, outcome: TrainOutcome): [string, string][] {
  const { result, losses } = outcome;
  const rows: [string, string][] = [
    ["steps", `${result.step} of ${config.steps}${result.stopped ? " (stopped)" : ""}`],
  ];
  if (losses !== undefined)
    rows.push(["training loss", `${losses.first.toFixed(4)} -> ${losses.last.toFixed(4)}`]);
  if (result.heldOut !== undefined) {
    rows.push(["held-out loss", `${result.heldOut.before.toFixed(4)} -> ${result.heldOut.after.toFixed(4)}`]);
  }
  rows.push(["tokens/s", `${formatCount(outcome.tokensPerSecond)} (median step, all ranks)`]);
  rows.push([
    "parameters, gradients, optimizer",
    `${formatBytes(result.memory.peakState)} a rank at peak, unsharded ${formatBytes(result.unshardedState)}`,
  ]);
  rows.push(["memory in all", `${formatBytes(result.memory.peakTotal)} a rank at peak`]);
  if (outcome.checkpoint !== undefined)
    rows.push(["last checkpoint", `${config.save}/${outcome.checkpoint}`]);
  if (config.export !== undefined && !result.stopped) rows.push(["weights", config.export]);
  rows.push(["time", formatDuration(outcome.seconds)]);
  return rows;
}

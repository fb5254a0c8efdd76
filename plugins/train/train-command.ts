/**
 * The command `train`.
 *
 * @module
 */
import type { CommandContext, CommandSpec } from "../../core/contracts/command.ts";
import type { Registry } from "../../core/contracts/plugin.ts";
import { INTERRUPTED } from "../../core/runtime/interrupt.ts";
import { readRunConfig, runOptions } from "../../core/runtime/run-config.ts";
import { textTable } from "../../core/runtime/text-table.ts";
import type { TrainConfig } from "./config.ts";
import { runDemo } from "./demo.ts";
import { TRAIN_OPTIONS } from "./options.ts";
import { runTraining, summaryRows, type TrainOutcome } from "./run-training.ts";
import { readTrainConfig } from "./train-config.ts";

/** Trains a model over ranks of this machine. Without options: the demo. */
export const trainCommand = (registry: Registry): CommandSpec => ({
  summary: "trains a model over ranks; without options, the demo",
  // Read when they are asked for: plugins may be set up in any order.
  get options() {
    return { ...TRAIN_OPTIONS, ...runOptions(registry, "train") };
  },
  run: async (context) => {
    const given = [...context.given].filter((name) => name !== "json" && name !== "plugin");
    if (given.length === 0) return await runDemo(context);
    const config = await readTrainConfig(registry, context.options, await readRunConfig(context));
    const log = context.options.log;
    const outcome = await runTraining(context, config, typeof log === "string" ? log : undefined);
    printSummary(context, config, outcome);
    return outcome.result.stopped ? INTERRUPTED : 0;
  },
});

function printSummary(context: CommandContext, config: TrainConfig, outcome: TrainOutcome): void {
  if (context.options.json === true) {
    const { result, checkpoint, seconds, tokensPerSecond } = outcome;
    context.print(
      JSON.stringify({
        ...result,
        checkpoint: checkpoint ?? null,
        seconds,
        tokens_per_second: tokensPerSecond,
      }),
    );
    return;
  }
  for (const line of textTable(summaryRows(config, outcome))) context.print(line);
}

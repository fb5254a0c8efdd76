/**
 * Training and generation from the command line.
 *
 * @module
 */
import { COMMAND, type Plugin, PROGRAM } from "../../core/contracts/plugin.ts";
import type { TrainConfig } from "./config.ts";
import { generateCommand } from "./generate-command.ts";
import { type GenerateConfig, generateRank } from "./generate-rank.ts";
import { trainCommand } from "./train-command.ts";
import { trainRank } from "./train-rank.ts";

/** Registers `train` and `generate`, and the programs that their ranks run. */
export const trainPlugin: Plugin = Object.freeze({
  name: "train",
  setup(registry) {
    registry.register(COMMAND, "train", trainCommand(registry));
    registry.register(COMMAND, "generate", generateCommand(registry));
    registry.register(PROGRAM, "train", (context, args) => trainRank(registry, context, args as TrainConfig));
    registry.register(PROGRAM, "generate", (context, args) =>
      generateRank(registry, context, args as GenerateConfig),
    );
  },
} satisfies Plugin);

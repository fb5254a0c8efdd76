/**
 * The commands on checkpoints, by name.
 *
 * @module
 */
import type { CommandSpec } from "../../core/contracts/command.ts";
import { convertCommand } from "./convert.ts";
import { inspectCommand } from "./inspect.ts";
import { mergeWeightsCommand } from "./merge-weights.ts";
import { verifyCommand } from "./verify.ts";

export { CONVERT_PROGRAM, convertRank } from "./convert-native.ts";

/** What the checkpoint plugin registers, in the order of the help. */
export const CHECKPOINT_COMMANDS: Readonly<Record<string, CommandSpec>> = {
  "merge-weights": mergeWeightsCommand,
  convert: convertCommand,
  inspect: inspectCommand,
  verify: verifyCommand,
};

/**
 * The questions of `config`, in Accelerate's order (`commands/config/cluster.py`), and the file that the answers make.
 *
 * @module
 */
import { stringify } from "yaml";
import { ConfigError } from "../../core/contracts/errors.ts";
import { givenByCode } from "./config/given.ts";
import { type ConfigOption, type OptionName, optionOf } from "./config/options.ts";
import { resolveOptions } from "./config/resolve.ts";
import { mixedPrecision } from "./config/training-options.ts";
import { parseValue } from "./config/values.ts";

/** How questions reach a person. */
export interface Dialog {
  /** Shows a prompt and returns the line that answers it; `undefined` when there are no more. */
  ask(prompt: string): Promise<string | undefined>;
  say(line: string): void;
}

/** Values by key of `fsdp_config`. */
type Answers = Record<string, unknown>;

interface Question {
  readonly option: OptionName;
  readonly ask: string;
  /** In place of the option's own. */
  choices?(answers: Answers): readonly string[] | undefined;
  /** Whether it is asked, given the answers so far. */
  when?(answers: Answers): boolean;
}

const isVersion1 = (answers: Answers) => answers.fsdp_version === 1;
const isVersion2 = (answers: Answers) => answers.fsdp_version === 2;

/** In the order in which they are asked. */
const QUESTIONS: readonly Question[] = [
  { option: "fsdpVersion", ask: "Which version of FSDP, 1 or 2?" },
  { option: "shardingStrategy", ask: "Which sharding strategy?", when: isVersion1 },
  { option: "reshardAfterForward", ask: "Free gathered parameters after forward?", when: isVersion2 },
  { option: "cpuOffload", ask: "Keep parameters and gradients in host memory?" },
  { option: "autoWrapPolicy", ask: "Which modules become units?" },
  {
    option: "transformerClsNamesToWrap",
    ask: "Which classes, separated by commas? Nothing: the model's blocks.",
    when: (answers) => answers.fsdp_auto_wrap_policy === "TRANSFORMER_BASED_WRAP",
  },
  {
    option: "minNumParams",
    ask: "From how many parameters on is a module a unit?",
    when: (answers) => answers.fsdp_auto_wrap_policy === "SIZE_BASED_WRAP",
  },
  { option: "backwardPrefetch", ask: "When is the next unit gathered in backward?", when: isVersion1 },
  {
    option: "stateDictType",
    ask: "What do state dicts hold?",
    choices: (answers) => (isVersion2(answers) ? ["SHARDED_STATE_DICT", "FULL_STATE_DICT"] : undefined),
  },
  { option: "forwardPrefetch", ask: "Gather the next unit while one computes forward?", when: isVersion1 },
  { option: "useOrigParams", ask: "Do optimizers see the model's own parameters?", when: isVersion1 },
  { option: "cpuRamEfficientLoading", ask: "Does rank 0 alone read the model's values?" },
  {
    option: "syncModuleStates",
    ask: "Does every rank begin with rank 0's values?",
    when: (answers) => isVersion1(answers) && answers.fsdp_cpu_ram_efficient_loading === false,
  },
  {
    option: "activationCheckpointing",
    ask: "Recompute activations in backward instead of keeping them?",
  },
];

/**
 * Asks everything; a wrong answer is asked for again.
 *
 * @returns the text of the config file.
 * @throws ConfigError when the answers end before the questions.
 */
export async function askForConfig(dialog: Dialog): Promise<string> {
  const processes = await askUntil(dialog, "How many ranks?", "1", (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : 0;
    if (value < 1 || value > 65536) throw new ConfigError("allowed are integers from 1 to 65536");
    return value;
  });
  const precision = await askUntil(dialog, "Mixed precision (no, fp16, bf16)?", "no", (text) =>
    mixedPrecision([text, "this"]),
  );
  const answers: Answers = {};
  for (const question of QUESTIONS) {
    if (question.when?.(answers) === false) continue;
    const { key } = optionOf(question.option);
    const value = await askFor(dialog, question, answers);
    if (value !== undefined) answers[key] = value;
  }
  const replicas =
    processes === 1 || isVersion1(answers)
      ? 1
      : await askUntil(dialog, "How many groups of ranks hold the same shards (HSDP)?", "1", (text) => {
          const value = /^\d+$/.test(text) ? Number(text) : 0;
          if (value < 1 || processes % value !== 0) {
            throw new ConfigError(`allowed are numbers that divide the ${processes} ranks`);
          }
          return value;
        });
  return stringify(
    {
      distributed_type: "FSDP",
      mixed_precision: precision,
      num_machines: 1,
      num_processes: processes,
      fsdp_config: answers,
      ...(replicas === 1
        ? {}
        : { parallelism_config: { dp_replicate_size: replicas, dp_shard_size: processes / replicas } }),
    },
    { version: "1.1" },
  );
}

async function askFor(dialog: Dialog, question: Question, answers: Answers): Promise<unknown> {
  const option = optionOf(question.option);
  const choices = question.choices?.(answers) ?? option.choices;
  const words =
    choices?.map((choice, i) => `${i + 1} ${choice}`).join(", ") ??
    (option.kind === "boolean" || option.kind === "degree" ? "yes, no" : undefined);
  const ask = words === undefined ? question.ask : `${question.ask} (${words})`;
  return await askUntil(dialog, ask, defaultOf(option, answers), (text) => {
    if (text === "") return undefined;
    const chosen = /^\d+$/.test(text) && choices !== undefined ? (choices[Number(text) - 1] ?? text) : text;
    const value = parseValue(question.option, chosen, "this");
    const version = question.option === "fsdpVersion" ? {} : { fsdpVersion: answers.fsdp_version };
    resolveOptions(givenByCode({ ...version, [question.option]: value }));
    return value;
  });
}

/** What an empty line means: the option's default. */
function defaultOf(option: ConfigOption, answers: Answers): string {
  const value = (isVersion1(answers) ? option.v1?.default : undefined) ?? option.default ?? "";
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

/** Asks until `read` takes the answer. */
async function askUntil<T>(
  dialog: Dialog,
  ask: string,
  byDefault: string,
  read: (text: string) => T,
): Promise<T> {
  for (;;) {
    const line = await dialog.ask(`${ask}${byDefault === "" ? "" : ` [${byDefault}]`}: `);
    if (line === undefined)
      throw new ConfigError(`cannot write a config file: the answers end before "${ask}"`);
    try {
      return read(line.trim() === "" ? byDefault : line.trim());
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      dialog.say(`Not this: ${error.message.replace(/^cannot use this: /, "")}`);
    }
  }
}

/**
 * The command `estimate`: what a rank will need, before anything runs.
 *
 * @module
 */
import type { CommandContext, CommandSpec, OptionSpec } from "../../../core/contracts/command.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { Network } from "./communication.ts";
import { estimate } from "./estimate.ts";
import { buildModel, chooseModel } from "./model-choice.ts";
import { reportLines } from "./report.ts";
import type { Precision } from "./strategies.ts";

type Options = CommandContext["options"];

const link = (what: string): Readonly<Record<"latency" | "bandwidth", OptionSpec>> => ({
  latency: { type: "number", min: 0, placeholder: "US", description: `microseconds a message ${what}` },
  bandwidth: { type: "number", min: 1e-6, placeholder: "GB/S", description: `gigabytes a second ${what}` },
});
const between = link("between nodes; with the other of the two, predicts communication times");
const within = link("within a node; as between nodes when absent");

/** Shows memory and communication of every strategy. */
export const estimateCommand: CommandSpec = {
  summary: "shows memory and communication a rank for every strategy, before running one",
  positionals: "[MODEL]",
  options: {
    model: {
      type: "string",
      aliases: ["config-model"],
      placeholder: "MODEL",
      description: "the same: a Hugging Face directory, a config.json or its text, or a preset",
    },
    "world-size": {
      type: "integer",
      min: 1,
      max: 16_384,
      default: 8,
      aliases: ["num-processes", "nproc"],
      description: "ranks",
    },
    "ranks-per-node": {
      type: "integer",
      min: 1,
      max: 16_384,
      default: 8,
      description: "ranks of one host: hybrid strategies cut within it, and replicate over hosts",
    },
    "batch-size": {
      type: "integer",
      min: 1,
      max: 65_536,
      default: 8,
      description: "sequences a rank and microbatch",
    },
    "seq-len": {
      type: "integer",
      min: 1,
      description: "tokens a sequence; by default the model's longest",
    },
    "gradient-accumulation-steps": {
      type: "integer",
      min: 1,
      max: 256,
      default: 1,
      description: "microbatches a step: all but the last leave gradients whole on each rank",
    },
    optimizer: { type: "string", choices: ["adamw", "sgd"], default: "adamw", description: "optimizer" },
    momentum: { type: "number", min: 0, max: 1, default: 0, description: "SGD's momentum" },
    "mixed-precision": {
      type: "string",
      choices: ["no", "fp16", "bf16"],
      default: "no",
      description: "what is gathered, computed and reduced in",
    },
    "activation-checkpointing": {
      type: "boolean",
      default: false,
      description: "compute every block again in the backward pass",
    },
    only: {
      type: "string",
      many: true,
      placeholder: "TEXT",
      description: "strategies whose names contain it",
    },
    latency: between.latency,
    bandwidth: between.bandwidth,
    "node-latency": within.latency,
    "node-bandwidth": within.bandwidth,
  },
  run: async ({ registry, options, positionals, print }) => {
    const named = typeof options.model === "string" ? [options.model] : [];
    const [given, ...more] = [...positionals, ...named];
    if (given === undefined || more.length > 0) {
      throw new ConfigError(`cannot estimate: ${positionals.length + named.length} models given, give one`);
    }
    const model = await chooseModel(registry, given);
    const { contextLength } = buildModel(registry, model);
    const found = await estimate(registry, {
      model,
      world: { worldSize: count(options, "world-size"), ranksPerNode: count(options, "ranks-per-node") },
      workload: {
        batchSize: count(options, "batch-size"),
        seqLen: number(options, "seq-len") ?? contextLength,
        optimizer: options.optimizer === "sgd" ? "sgd" : "adamw",
        momentum: count(options, "momentum"),
        accumulation: count(options, "gradient-accumulation-steps"),
      },
      precision: options["mixed-precision"] as Precision,
      activationCheckpointing: options["activation-checkpointing"] === true,
      only: Array.isArray(options.only) ? options.only : [],
      network: networkOf(options),
    });
    if (options.json === true) print(JSON.stringify(found, null, 2));
    else for (const line of reportLines(found)) print(line);
    return 0;
  },
};

/** The network that was described; nothing when none was. @throws ConfigError for half a description. */
function networkOf(options: Options): Network | undefined {
  const latency = number(options, "latency");
  const bandwidth = number(options, "bandwidth");
  const node = [number(options, "node-latency"), number(options, "node-bandwidth")] as const;
  if (latency === undefined && bandwidth === undefined && node.every((value) => value === undefined)) {
    return undefined;
  }
  if (latency === undefined || bandwidth === undefined) {
    const missing = latency === undefined ? "--latency" : "--bandwidth";
    throw new ConfigError(`cannot predict times: ${missing} is missing, give --latency and --bandwidth`);
  }
  const seconds = (microseconds: number): number => microseconds / 1e6;
  const bytes = (gigabytes: number): number => gigabytes * 1e9;
  return {
    betweenNodes: { latency: seconds(latency), bandwidth: bytes(bandwidth) },
    withinNode: { latency: seconds(node[0] ?? latency), bandwidth: bytes(node[1] ?? bandwidth) },
  };
}

function number(options: Options, name: string): number | undefined {
  const value = options[name];
  return typeof value === "number" ? value : undefined;
}

/** A number that has a default. */
function count(options: Options, name: string): number {
  return number(options, name)!;
}

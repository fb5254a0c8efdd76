/**
 * The options of `train`, as data.
 *
 * @module
 */
import type { OptionSpec } from "../../core/contracts/command.ts";

/** The options of `train` alone. */
export const TRAIN_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  model: { type: "string", placeholder: "DIR", description: "Hugging Face directory to start from" },
  "config-model": {
    type: "string",
    placeholder: "JSON|PRESET",
    description: "train from scratch: a preset, a config.json, or its text",
  },
  data: {
    type: "string",
    many: true,
    placeholder: "PATH",
    description: "text files and folders, read as bytes",
  },
  tokens: {
    type: "string",
    placeholder: "FILE",
    description: "safetensors with int64 `tokens` [steps, global batch, seq + 1]",
  },
  steps: { type: "integer", min: 1, description: "optimizer steps in all; with --tokens all that it holds" },
  "batch-size": { type: "integer", min: 1, default: 8, description: "sequences a rank and microbatch" },
  "seq-len": { type: "integer", min: 1, description: "tokens a sequence; by default the model's longest" },
  optimizer: { type: "string", choices: ["adamw", "sgd"], default: "adamw", description: "optimizer" },
  lr: { type: "number", min: 0, default: 1e-3, description: "learning rate" },
  beta1: { type: "number", min: 0, max: 1, default: 0.9, description: "AdamW's first decay" },
  beta2: { type: "number", min: 0, max: 1, default: 0.999, description: "AdamW's second decay" },
  eps: { type: "number", min: 0, default: 1e-8, description: "AdamW's epsilon" },
  "weight-decay": { type: "number", min: 0, default: 0.01, description: "weight decay" },
  momentum: { type: "number", min: 0, max: 1, default: 0, description: "SGD's momentum" },
  "lr-schedule": {
    type: "string",
    choices: ["constant", "cosine"],
    default: "constant",
    description: "learning rate after the warm-up",
  },
  "warmup-steps": { type: "integer", min: 0, default: 0, description: "steps of linear warm-up" },
  clip: { type: "number", min: 0, description: "largest gradient norm" },
  "late-loss": {
    type: "boolean",
    default: false,
    description: "read a step's loss while the next one runs, and report it then: nothing waits for it",
  },
  seed: {
    type: "integer",
    min: 0,
    max: 2 ** 32 - 1,
    default: 0,
    description: "seed of weights, data and dropout",
  },
  save: { type: "string", placeholder: "PATH", description: "keep sharded checkpoints there" },
  "save-every": {
    type: "integer",
    min: 1,
    description: "steps between checkpoints; the last step is always saved",
  },
  "async-save": {
    type: "boolean",
    default: false,
    description: "write checkpoints in the background, while training goes on",
  },
  "keep-last": { type: "integer", min: 1, description: "keep only so many of the newest checkpoints" },
  resume: { type: "string", placeholder: "PATH|latest", description: "go on from a checkpoint" },
  export: {
    type: "string",
    placeholder: "FILE",
    description: "write the full weights there in the end (safetensors)",
  },
  log: { type: "string", placeholder: "FILE", description: "write one JSON object a step there" },
};

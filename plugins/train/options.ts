/**
 * The options of `train`, as data.
 *
 * @module
 */
import type { OptionSpec } from "../../core/contracts/command.ts";

/** Where ranks run. Shared by `train` and `generate`. */
export const PLACE_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  backend: { type: "string", default: "cpu", description: "device" },
  "backend-options": {
    type: "string",
    many: true,
    placeholder: "KEY=VALUE",
    description: "settings of the backend, for example matmul=wasm",
  },
  "webgpu-provider": {
    type: "string",
    choices: ["dawn", "runtime"],
    description: "backend webgpu: Dawn (npm webgpu, the default) or the runtime's own navigator.gpu",
  },
  "webgpu-checks": {
    type: "boolean",
    description: "backend webgpu: Dawn's bounds and command checks, off by default",
  },
  collective: { type: "string", default: "threads", description: "how ranks run and exchange data" },
  "world-size": { type: "integer", min: 1, max: 65536, default: 1, description: "number of ranks" },
};

/** How parameters are sharded. Shared by `train` and `generate`. */
export const FSDP_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  "fsdp-version": { type: "integer", min: 1, max: 2, default: 2, description: "version of FSDP" },
  "fsdp-reshard-after-forward": {
    type: "boolean",
    description: "free gathered parameters after forward; by default everywhere but in the root",
  },
  "fsdp-forward-prefetch": {
    type: "boolean",
    default: false,
    description: "gather the next unit's parameters while one computes",
  },
  "fsdp-auto-wrap-policy": {
    type: "string",
    default: "TRANSFORMER_BASED_WRAP",
    choices: ["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"],
    description: "which modules become units",
  },
  "fsdp-transformer-layer-cls-to-wrap": {
    type: "string",
    many: true,
    placeholder: "CLASS",
    description: "classes of TRANSFORMER_BASED_WRAP; by default the model's blocks",
  },
  "fsdp-min-num-params": {
    type: "integer",
    min: 0,
    default: 100_000_000,
    description: "SIZE_BASED_WRAP takes modules with more parameters than this",
  },
};

/** All options of `train`. */
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
  ...PLACE_OPTIONS,
  ...FSDP_OPTIONS,
  "mixed-precision": {
    type: "string",
    choices: ["no", "fp16", "bf16"],
    default: "no",
    description: "gather, compute and reduce in 16 bits; shards and optimizer state stay float32",
  },
  steps: { type: "integer", min: 1, description: "optimizer steps in all; with --tokens all that it holds" },
  "batch-size": { type: "integer", min: 1, default: 8, description: "sequences a rank and microbatch" },
  "seq-len": { type: "integer", min: 1, description: "tokens a sequence; by default the model's longest" },
  "gradient-accumulation-steps": { type: "integer", min: 1, default: 1, description: "microbatches a step" },
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
  resume: { type: "string", placeholder: "PATH|latest", description: "go on from a checkpoint" },
  export: {
    type: "string",
    placeholder: "FILE",
    description: "write the full weights there in the end (safetensors)",
  },
  log: { type: "string", placeholder: "FILE", description: "write one JSON object a step there" },
};

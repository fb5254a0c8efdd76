/**
 * A model family: language models that config files describe, built from scratch or from saved weights.
 *
 * @module
 */
import type { TensorReader } from "../contracts/checkpointer.ts";
import type { Kind } from "../contracts/plugin.ts";
import type { AnyModule, Module } from "../nn/module.ts";
import type { Tensor } from "../tensor/tensor.ts";

/**
 * A causal language model. Given token ids [batch, time] it returns logits [batch, time, vocab]; given targets of the
 * same shape too, the mean cross entropy.
 */
export interface CausalLanguageModel {
  readonly module: Module<[ids: Tensor, targets?: Tensor], Tensor>;
  readonly vocabSize: number;
  /** Longest sequence. */
  readonly contextLength: number;
  /** Class names of its blocks, the natural units. */
  readonly blockClasses: readonly string[];
  /** Modules whose parameters the model itself reads, beside what they compute (its head): they belong to the root's unit. */
  readonly rootModules?: readonly AnyModule[];
  /** Its configuration as a Hugging Face `config.json`. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** A registered family. */
export interface ModelFamily {
  /** Named configurations. */
  readonly presets: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /**
   * Builds a model from a Hugging Face `config.json` (checked here). It has no memory until it is put on a device.
   *
   * @param weights values come from there instead of from initialisers, as they are needed, part by part.
   * @throws ConfigError for a config it cannot honour. @throws CheckpointError when `weights` lacks a parameter or has it in another shape.
   */
  create(config: unknown, weights?: TensorReader): CausalLanguageModel;
}

/** Families, by the `model_type` of their `config.json`. */
export const MODEL: Kind<ModelFamily> = { name: "model family" };

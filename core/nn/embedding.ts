/**
 * Embedding: a learned row for each index, as `torch.nn.Embedding`.
 *
 * @module
 */
import { embedding } from "../tensor/ops/embedding.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { normal } from "./init.ts";
import type { LayerOptions } from "./layer-options.ts";
import { Module } from "./module.ts";
import { type Initializer, Parameter } from "./parameter.ts";

/** Options of an embedding. */
export interface EmbeddingOptions extends Omit<LayerOptions, "bias"> {
  /** Standard normal by default. */
  readonly initializer?: Initializer;
}

/** Rows of a table: of int32 or int64 indices [...] a [..., embeddingDim]. */
export class Embedding extends Module<[Tensor], Tensor> {
  /** [numEmbeddings, embeddingDim] */
  readonly weight: Parameter;

  constructor(numEmbeddings: number, embeddingDim: number, options: EmbeddingOptions = {}) {
    super();
    this.weight = new Parameter([numEmbeddings, embeddingDim], options.initializer ?? normal(1), options);
  }

  override forward(indices: Tensor): Tensor {
    return embedding(this.weight, indices);
  }
}

/**
 * Options that layers with parameters share.
 *
 * @module
 */
import type { DType } from "../contracts/dtype.ts";

/** Options of a layer with a weight and a bias. */
export interface LayerOptions {
  /** Whether there is a bias; there is by default. */
  readonly bias?: boolean;
  /** Of the parameters; float32 by default. */
  readonly dtype?: DType;
}

/**
 * Batches of random windows of a corpus. Which window a row gets depends on the seed and on the row's place in the run
 * alone, so the global batch is the same at every world size, and a resumed run goes on with the very rows it would
 * have had.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import { randomWords, streamKey } from "../../../core/tensor/random.ts";

/** Which rows to draw. */
export interface WindowOptions {
  readonly seed: number;
  /** Inputs per row; a window holds one byte more, so that every input has a target. */
  readonly seqLen: number;
  /** Counted from 0. */
  readonly step: number;
  /** Rows of a step over all ranks. */
  readonly globalBatch: number;
  readonly rank: number;
  readonly worldSize: number;
}

/**
 * This rank's rows of a step: int32 [globalBatch / worldSize, seqLen + 1], bytes as tokens.
 *
 * Rank r has rows `r * rows` up to `(r + 1) * rows` of the global batch. Row g of step s starts at
 * `floor(word / 2^32 * starts)`, where `word` is number `s * globalBatch + g` of the seed's stream and `starts` counts
 * the windows in the corpus.
 *
 * @throws ConfigError when the corpus is shorter than one window, or the batch cannot be shared equally.
 */
export function windows(corpus: Uint8Array, options: WindowOptions): Int32Array {
  const { seed, seqLen, step, globalBatch, rank, worldSize } = options;
  const starts = corpus.length - seqLen;
  if (starts < 1) {
    throw new ConfigError(
      `cannot sample the corpus: given "--seq-len" ${seqLen} and ${corpus.length} bytes of text, allowed is up to ${Math.max(0, corpus.length - 1)}`,
    );
  }
  if (globalBatch % worldSize !== 0) {
    throw new ConfigError(
      `cannot share the batch: given ${globalBatch} rows over ${worldSize} ranks, allowed are multiples of ${worldSize}`,
    );
  }
  const rows = globalBatch / worldSize;
  const words = new Uint32Array(rows);
  randomWords(streamKey(seed, "data"), step * globalBatch + rank * rows, words);
  const tokens = new Int32Array(rows * (seqLen + 1));
  for (let row = 0; row < rows; row++) {
    // One rounding, the same everywhere, and never up to `starts`.
    const start = Math.floor((words[row]! / 2 ** 32) * starts);
    tokens.set(corpus.subarray(start, start + seqLen + 1), row * (seqLen + 1));
  }
  return tokens;
}

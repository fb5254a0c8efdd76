/**
 * Batches that are fixed in advance: a file with the tokens of every step, as used to compare runs with other
 * implementations.
 *
 * @module
 */
import type { TensorReader } from "../../../core/contracts/checkpointer.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";

/** What the run needs of the file. */
export interface TokensOptions {
  /** Where the file is, for messages. */
  readonly path: string;
  /** First step that is not run, counted from 0. */
  readonly steps: number;
  readonly rank: number;
  readonly worldSize: number;
  /** Ids from here up are refused. */
  readonly vocabSize: number;
}

/** The batches of one rank. */
export interface TokenBatches {
  /** Steps in the file. */
  readonly steps: number;
  /** Rows of a step over all ranks. */
  readonly globalBatch: number;
  /** Rows of a step on this rank. */
  readonly rows: number;
  /** Inputs per row; a row holds one token more. */
  readonly seqLen: number;
  /**
   * This rank's rows of a step: int32 [rows, seqLen + 1].
   *
   * @throws ConfigError when the step is not in the file, or an id is outside the vocabulary.
   */
  read(step: number): Promise<Int32Array>;
}

/**
 * Opens `tokens`, int64 [steps, global batch, seq + 1]: rank r takes its equal slice of the batch in order, step s takes
 * row s. Reads nothing but the header. Closing the reader is its opener's business.
 *
 * @throws ConfigError when the tensor is missing, of another dtype or rank, cannot be shared equally, or is too short.
 */
export function openTokens(reader: TensorReader, options: TokensOptions): TokenBatches {
  const failed = `cannot use --tokens ${JSON.stringify(options.path)}`;
  const [steps, globalBatch, rowLength] = checkedShape(reader, failed);
  const { worldSize, rank } = options;
  if (globalBatch % worldSize !== 0) {
    throw new ConfigError(
      `${failed}: given a global batch of ${globalBatch} over --world-size ${worldSize}, allowed are world sizes that divide ${globalBatch}`,
    );
  }
  if (options.steps > steps) {
    throw new ConfigError(
      `${failed}: given --steps ${options.steps}, allowed is up to ${steps}, which the file holds`,
    );
  }
  const rows = globalBatch / worldSize;
  return {
    steps,
    globalBatch,
    rows,
    seqLen: rowLength - 1,
    read: async (step) => {
      if (step < 0 || step >= steps) {
        throw new ConfigError(`${failed}: given step ${step}, allowed are steps from 0 to ${steps - 1}`);
      }
      const slice = { offsets: [step, rank * rows, 0], sizes: [1, rows, rowLength] };
      // int64, as checked, is a BigInt64Array on the host.
      const ids = (await reader.read("tokens", slice)) as BigInt64Array;
      return Int32Array.from(ids, (id) => checkedId(id, options.vocabSize, `${failed}: step ${step}`));
    },
  };
}

function checkedShape(reader: TensorReader, failed: string): readonly [number, number, number] {
  if (!reader.has("tokens")) {
    const names = reader.names.map((name) => JSON.stringify(name)).join(", ");
    throw new ConfigError(`${failed}: given tensors ${names || "none"}, allowed is a file with "tokens"`);
  }
  const { dtype, shape } = reader.info("tokens");
  const [steps, globalBatch, rowLength] = shape;
  if (dtype !== "int64" || shape.length !== 3 || !(globalBatch! > 0) || !(rowLength! > 1)) {
    throw new ConfigError(
      `${failed}: given "tokens" of ${dtype} [${shape.join(", ")}], allowed is int64 [steps, global batch, seq + 1]`,
    );
  }
  return [steps!, globalBatch!, rowLength!];
}

function checkedId(id: bigint, vocabSize: number, failed: string): number {
  if (id >= 0n && id < vocabSize) return Number(id);
  throw new ConfigError(`${failed}: given token ${id}, allowed are tokens from 0 to ${vocabSize - 1}`);
}

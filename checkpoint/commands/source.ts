/**
 * A checkpoint or weights of any format, as the commands see them: tensors with the files that hold their boxes, and
 * values. What differs between formats ends here.
 *
 * @module
 */
import type { CheckpointFault, Value } from "../../core/contracts/checkpointer.ts";
import type { StoredArray, StoredDType } from "../../core/contracts/dtype.ts";
import type { Box } from "../../core/contracts/shard.ts";
import type { DcpPath } from "../formats/dcp/metadata.ts";
import type { PickleValue } from "../formats/pickle/values.ts";

/** What a source can be. */
export type SourceFormat = "native" | "dcp" | "accelerate" | "safetensors" | "torch";

/** A box of a tensor, and which of the source's files holds it. */
export interface SourceChunk extends Box {
  /** Index into `files`. */
  readonly file: number;
}

/** A tensor. */
export interface SourceTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** The full ones are disjoint and cover the tensor; DCP has empty ones too. */
  readonly chunks: readonly SourceChunk[];
  /** The keys that lead to it in a nested state, when the format tells. */
  readonly path?: DcpPath | undefined;
}

/** A value that is no tensor. */
export interface SourceValue {
  readonly name: string;
  readonly value: Value;
  /** As Python had it, when it came from there. */
  readonly exact?: PickleValue;
  readonly path?: DcpPath | undefined;
  /** Index into `files`, when it lies in one. */
  readonly file?: number;
}

/** Something that is there and is not carried. */
export interface LeftOut {
  readonly name: string;
  readonly reason: string;
}

/** A file of the source. */
export interface SourceFile {
  readonly name: string;
  readonly bytes: number;
}

/** An open source. Reads follow one another. */
export interface CheckpointSource {
  readonly format: SourceFormat;
  /** Which checkpoint, for people. */
  readonly location: string;
  readonly step?: number;
  readonly worldSize?: number;
  readonly files: readonly SourceFile[];
  readonly tensors: readonly SourceTensor[];
  readonly values: readonly SourceValue[];
  readonly rankValues: readonly Readonly<Record<string, Value>>[];
  readonly leftOut: readonly LeftOut[];
  /** Whether names begin with what they belong to: `model.`, `optim.`. Weights files have the model's own names. */
  readonly nested: boolean;
  /** A box of a tensor, row-major. @throws CheckpointError when bytes are damaged. */
  read(name: string, box: Box): Promise<StoredArray>;
  close(): Promise<void>;
}

/** Can tell what is wrong with it. */
export interface Verifiable {
  verify(): Promise<readonly CheckpointFault[]>;
}

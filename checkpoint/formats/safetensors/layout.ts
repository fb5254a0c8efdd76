/**
 * The layout of a safetensors file to be written: order of tensors, byte ranges, header. Known from shapes alone, so
 * that data can be streamed behind it.
 *
 * @module
 */

import { STORED_DTYPES, type StoredDType } from "../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { volume } from "../../boxes.ts";
import { MAX_HEADER_BYTES } from "./header.ts";

/** Data begins at a multiple of this, in bytes: enough for any vector load from a mapped file. */
const DATA_ALIGNMENT = 64;

/** What a header must know of a tensor. */
export interface LayoutTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
}

/** A tensor and where its bytes lie in the file, counted from the start of the file. */
export interface PlacedTensor<T extends LayoutTensor> {
  readonly tensor: T;
  readonly begin: number;
  readonly end: number;
}

/** What to write: the header's bytes, then the tensors' in this order. */
export interface SafetensorsLayout<T extends LayoutTensor> {
  readonly header: Uint8Array;
  readonly tensors: readonly PlacedTensor<T>[];
  /** Length of the whole file, in bytes. */
  readonly fileBytes: number;
}

/**
 * Lays out a file: element size descending, then name, so that every tensor is aligned to its elements.
 *
 * @throws CheckpointError for names that are empty, reserved, ill-formed or come twice, and for too long a header.
 */
export function layoutSafetensors<T extends LayoutTensor>(
  tensors: readonly T[],
  metadata: Readonly<Record<string, string>>,
): SafetensorsLayout<T> {
  checkNames(tensors);
  const order = tensors.toSorted(
    (a, b) =>
      STORED_DTYPES[b.dtype].bytes - STORED_DTYPES[a.dtype].bytes ||
      (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  const members: string[] = [];
  const pairs = Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1));
  if (pairs.length > 0) {
    const texts = pairs.map(([key, value]) => `${quote(key)}:${quote(value)}`);
    members.push(`"__metadata__":{${texts.join(",")}}`);
  }
  const ranges: { begin: number; end: number }[] = [];
  let at = 0;
  for (const { name, dtype, shape } of order) {
    const end = at + volume(shape) * STORED_DTYPES[dtype].bytes;
    if (!Number.isSafeInteger(end))
      throw new CheckpointError(`safetensors layout: ${name}: shape [${shape}] is too large`);
    const fields = `"dtype":"${STORED_DTYPES[dtype].safetensors}","shape":[${shape}],"data_offsets":[${at},${end}]`;
    members.push(`${quote(name)}:{${fields}}`);
    ranges.push({ begin: at, end });
    at = end;
  }
  const header = padHeader(new TextEncoder().encode(`{${members.join(",")}}`));
  const placed = order.map((tensor, i) => ({
    tensor,
    begin: header.length + ranges[i]!.begin,
    end: header.length + ranges[i]!.end,
  }));
  return { header, tensors: placed, fileBytes: header.length + at };
}

function padHeader(json: Uint8Array): Uint8Array {
  const total = Math.ceil((8 + json.length) / DATA_ALIGNMENT) * DATA_ALIGNMENT;
  if (total - 8 > MAX_HEADER_BYTES) {
    throw new CheckpointError(
      `safetensors layout: the header takes ${total - 8} bytes, allowed are ${MAX_HEADER_BYTES}`,
    );
  }
  const header = new Uint8Array(total).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(total - 8), true);
  header.set(json, 8);
  return header;
}

function quote(text: string): string {
  if (!text.isWellFormed())
    throw new CheckpointError(`safetensors layout: ${JSON.stringify(text)} has a lone surrogate`);
  return JSON.stringify(text);
}

function checkNames(tensors: readonly LayoutTensor[]): void {
  const names = new Set<string>();
  for (const { name } of tensors) {
    if (name === "" || name === "__metadata__" || names.has(name)) {
      const problem = names.has(name) ? "comes twice" : "is empty or reserved";
      throw new CheckpointError(`safetensors layout: the name ${JSON.stringify(name)} ${problem}`);
    }
    names.add(name);
  }
}

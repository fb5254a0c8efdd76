/**
 * Element types of safetensors: all that a header may name, and which of them are ours.
 *
 * Follows safetensors/src/tensor.rs of huggingface/safetensors 0.8.
 *
 * @module
 */
import { STORED_DTYPES, type StoredDType } from "../../../core/contracts/dtype.ts";

/** Bits of one element by safetensors name. Sub-byte types are packed. */
export const SAFETENSORS_BITS: ReadonlyMap<string, number> = new Map([
  ["BOOL", 8],
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["U8", 8],
  ["I8", 8],
  ["F8_E5M2", 8],
  ["F8_E4M3", 8],
  ["F8_E8M0", 8],
  ["F8_E4M3FNUZ", 8],
  ["F8_E5M2FNUZ", 8],
  ["I16", 16],
  ["U16", 16],
  ["F16", 16],
  ["BF16", 16],
  ["I32", 32],
  ["U32", 32],
  ["F32", 32],
  ["C64", 64],
  ["F64", 64],
  ["I64", 64],
  ["U64", 64],
]);

const OURS: ReadonlyMap<string, StoredDType> = new Map(
  (Object.keys(STORED_DTYPES) as StoredDType[]).map((dtype) => [STORED_DTYPES[dtype].safetensors, dtype]),
);

/** The dtype that host arrays have for a safetensors name; `undefined` for types that can only be read as bytes. */
export function dtypeOf(name: string): StoredDType | undefined {
  return OURS.get(name);
}

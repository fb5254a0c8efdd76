/**
 * Tensors in another dtype than they were saved in, converted as their bytes are asked for: any range of the converted
 * bytes, in memory that depends on neither the tensor nor the range.
 *
 * @module
 */
import { bytesOf, hostArray, STORED_DTYPES, type StoredDType } from "../../core/contracts/dtype.ts";
import type { Box } from "../../core/contracts/shard.ts";
import type { BlockReader } from "../block-reader.ts";
import { castElements, isCastable } from "../cast.ts";
import type { ManifestTensor } from "../manifest.ts";
import type { NewPiece } from "./pieces.ts";
import { Problem } from "./problem.ts";
import { tensorBytes } from "./tensor-bytes.ts";

/**
 * The dtype that a request names, for elements of `saved`.
 *
 * @throws Problem when there is no such dtype, or no conversion into it.
 */
export function castTarget(saved: StoredDType, wanted: string): StoredDType {
  if (wanted === saved) return saved;
  const allowed = castsOf(saved);
  const found = allowed.find((dtype) => dtype === wanted);
  if (found !== undefined) return found;
  throw new Problem("invalid", `dtype ${wanted}: allowed for ${saved} are ${allowed.join(", ")}`, {
    fields: { saved, allowed },
  });
}

/** What elements of a dtype can be had as. */
function castsOf(saved: StoredDType): readonly StoredDType[] {
  const all = Object.keys(STORED_DTYPES) as StoredDType[];
  return all.filter((dtype) => dtype === saved || isCastable(saved, dtype));
}

/**
 * `tensorBytes` with elements as `dtype`, a range of the converted bytes. The elements are those of the rounding that a
 * load with `cast` does.
 */
export async function* castBytes(
  reader: BlockReader,
  tensor: ManifestTensor,
  box: Box,
  dtype: StoredDType,
  begin: number,
  end: number,
  newPiece: NewPiece,
): AsyncGenerator<Uint8Array> {
  if (dtype === tensor.dtype) {
    yield* tensorBytes(reader, tensor, box, begin, end, newPiece);
    return;
  }
  const from = STORED_DTYPES[tensor.dtype].bytes;
  const to = STORED_DTYPES[dtype].bytes;
  const first = Math.floor(begin / to);
  const last = Math.ceil(end / to);
  let at = first * to;
  // Whole elements in, so that every piece is whole elements too, and aligned to them.
  for await (const piece of tensorBytes(reader, tensor, box, first * from, last * from, newPiece)) {
    const saved = hostArray(tensor.dtype, piece.buffer, piece.byteOffset, piece.length / from);
    const bytes = bytesOf(castElements(saved, tensor.dtype, dtype));
    yield bytes.subarray(Math.max(0, begin - at), Math.min(bytes.length, end - at));
    at += bytes.length;
  }
}

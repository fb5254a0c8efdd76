/**
 * Sharded states for tests: whole tensors, cut into boxes and dealt to ranks.
 *
 * @module
 */

import { volume } from "../../checkpoint/boxes.ts";
import type { ShardedState, StatePiece, Value } from "../../core/contracts/checkpointer.ts";
import {
  bytesOf,
  newHostArray,
  STORED_DTYPES,
  type StoredArray,
  type StoredDType,
} from "../../core/contracts/dtype.ts";
import type { Box } from "../../core/contracts/shard.ts";

/** A whole tensor. */
export interface FullTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Which boxes a rank holds of a tensor. */
export type Layout = (tensor: FullTensor, rank: number) => readonly Box[];

/** A tensor whose bytes depend on its name and nothing else. */
export function patternTensor(name: string, dtype: StoredDType, shape: readonly number[]): FullTensor {
  const bytes = new Uint8Array(volume(shape) * STORED_DTYPES[dtype].bytes);
  let word = 0x9e3779b9 ^ name.length;
  for (const char of name) word = Math.imul(word ^ char.codePointAt(0)!, 0x01000193);
  for (let i = 0; i < bytes.length; i++) {
    word = Math.imul(word, 1664525) + 1013904223;
    bytes[i] = word >>> 24;
  }
  return { name, dtype, shape, bytes };
}

/** The bytes of a box, element by element: the plain twin of strided transfers. */
export function cutBox(tensor: FullTensor, box: Box): Uint8Array {
  const size = STORED_DTYPES[tensor.dtype].bytes;
  const out = new Uint8Array(volume(box.sizes) * size);
  for (let i = 0; i < volume(box.sizes); i++) {
    let rest = i;
    let at = 0;
    let stride = 1;
    for (let d = box.sizes.length - 1; d >= 0; d--) {
      at += (box.offsets[d]! + (rest % box.sizes[d]!)) * stride;
      rest = Math.floor(rest / box.sizes[d]!);
      stride *= tensor.shape[d]!;
    }
    out.set(tensor.bytes.subarray(at * size, (at + 1) * size), i * size);
  }
  return out;
}

/** A rank's part of some tensors, with their values in place. */
export function shardedState(
  tensors: readonly FullTensor[],
  layout: Layout,
  rank: number,
  values: Readonly<Record<string, Value>> = {},
): ShardedState {
  return {
    tensors: tensors.map((tensor) => ({
      ...tensor,
      pieces: layout(tensor, rank).map((box): StatePiece => {
        const host = fromBytes(tensor.dtype, cutBox(tensor, box));
        return { ...box, read: async () => host, write: () => undefined };
      }),
    })),
    values,
    rankValues: { rank },
  };
}

/** A rank's part of some tensors, empty; `filled` holds what was written, by tensor and box. */
export function emptyState(
  tensors: readonly FullTensor[],
  layout: Layout,
  rank: number,
): {
  readonly state: Pick<ShardedState, "tensors">;
  readonly filled: { tensor: FullTensor; box: Box; bytes: Uint8Array }[];
} {
  const filled: { tensor: FullTensor; box: Box; bytes: Uint8Array }[] = [];
  const state = {
    tensors: tensors.map((tensor) => ({
      ...tensor,
      pieces: layout(tensor, rank).map((box) => ({
        ...box,
        read: async () => newHostArray(tensor.dtype, volume(box.sizes)),
        write: (data: StoredArray) => void filled.push({ tensor, box, bytes: bytesOf(data) }),
      })),
    })),
  };
  return { state, filled };
}

/** Rows of dim 0 as `torch.chunk` deals them: the last ranks may hold few or none. Scalars lie on rank 0. */
export function dimZero(worldSize: number): Layout {
  return ({ shape }, rank) => {
    if (shape.length === 0) return rank === 0 ? [{ offsets: [], sizes: [] }] : [];
    const rows = Math.ceil(shape[0]! / worldSize);
    const begin = Math.min(rank * rows, shape[0]!);
    const end = Math.min(begin + rows, shape[0]!);
    return [{ offsets: [begin, ...shape.slice(1).map(() => 0)], sizes: [end - begin, ...shape.slice(1)] }];
  };
}

/** Every rank holds all. */
export const replicated: Layout = ({ shape }) => [{ offsets: shape.map(() => 0), sizes: shape }];

function fromBytes(dtype: StoredDType, bytes: Uint8Array): StoredArray {
  const host = newHostArray(dtype, bytes.length / STORED_DTYPES[dtype].bytes);
  bytesOf(host).set(bytes);
  return host;
}

/**
 * Which attention kernels serve a shape on a device: subgroup matrices for float16 where there are some, tiles in
 * workgroup memory on other GPUs, one thread a row elsewhere.
 *
 * @module
 */
import { DeviceError } from "../../../core/contracts/errors.ts";
import type { Gpu } from "../dispatch.ts";
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import type { AttentionVariant } from "../wgsl/attention-common.ts";
import {
  attentionDelta,
  attentionPlain,
  attentionPlainKey,
  attentionPlainQuery,
  PLAIN_DEPTH,
  PLAIN_ROWS,
} from "../wgsl/attention-plain.ts";
import { attentionMatrix, matrixBytes, OWNED_ROWS } from "../wgsl/attention-subgroup.ts";
import { attentionMatrixBackward } from "../wgsl/attention-subgroup-backward.ts";
import { attentionTile, attentionTiled } from "../wgsl/attention-tile.ts";
import { attentionTiledBackward, backwardBytes } from "../wgsl/attention-tile-backward.ts";
import type { KernelSource } from "../wgsl/source.ts";
import { tensorCores } from "./matmul-cores.ts";

/** A kernel and the rows that one workgroup of it owns. */
interface Rows {
  readonly source: KernelSource;
  readonly rows: number;
}

/** The kernels of one shape. */
export interface AttentionKernels {
  readonly forward: Rows;
  readonly delta: Rows;
  readonly query: Rows;
  readonly key: Rows;
}

/** What the choice depends on. */
export interface AttentionNeeds extends Omit<AttentionVariant, "vector"> {
  /** Whether every operand allows words of so many elements. */
  aligned(word: 4 | 8): boolean;
}

/** Deepest heads of the tiled kernels, and neighbours that share a row in them. */
const TILED_DEPTH = 128;
const SHARING = 8;

/** The kernels for a shape. @throws DeviceError when heads are deeper than any kernel takes. */
export function attentionKernels(gpu: Gpu, needs: AttentionNeeds): AttentionKernels {
  const { element, stats, headDim, causal, aligned } = needs;
  const { features, limits } = gpu;
  if (headDim <= TILED_DEPTH && features.tiled) {
    if (element === "f16" && tensorCores(gpu) && matrixBytes(headDim) <= limits.workgroupBytes) {
      return matrixKernels(stats, headDim, causal, aligned(8), aligned(4));
    }
    const resident = headDim <= TILED_DEPTH / 2 && backwardBytes(headDim, true) <= limits.workgroupBytes;
    if (features.minLanes >= SHARING && backwardBytes(headDim, resident) <= limits.workgroupBytes) {
      return tiledKernels(element, stats, headDim, causal, aligned(4), resident);
    }
  }
  if (headDim > PLAIN_DEPTH) {
    throw new DeviceError(
      `webgpu attention: heads of ${headDim} elements were given, allowed: at most ${PLAIN_DEPTH}`,
    );
  }
  return plainKernels(element, stats, aligned(4));
}

const plainKernels = memoized((element: FloatType, stats: FloatType, vector: boolean): AttentionKernels => {
  const rows = (source: KernelSource): Rows => ({ source, rows: PLAIN_ROWS });
  return {
    forward: rows(attentionPlain(element, stats)),
    delta: rows(attentionDelta(element, vector)),
    query: rows(attentionPlainQuery(element, stats)),
    key: rows(attentionPlainKey(element, stats)),
  };
});

const tiledKernels = memoized(
  (
    element: FloatType,
    stats: FloatType,
    headDim: number,
    causal: boolean,
    vector: boolean,
    resident: boolean,
  ): AttentionKernels => {
    const variant = { element, stats, headDim, causal, vector };
    const tile = attentionTile(headDim);
    const rows = (source: KernelSource): Rows => ({ source, rows: tile.rows });
    return {
      forward: rows(attentionTiled(variant, tile)),
      delta: { source: attentionDelta(element, vector), rows: PLAIN_ROWS },
      query: rows(attentionTiledBackward(variant, tile, "query", resident)),
      key: rows(attentionTiledBackward(variant, tile, "key", resident)),
    };
  },
);

const matrixKernels = memoized(
  (stats: FloatType, headDim: number, causal: boolean, vector: boolean, delta: boolean): AttentionKernels => {
    const variant = { element: "f16", stats, headDim, causal, vector } as const;
    const rows = (source: KernelSource): Rows => ({ source, rows: OWNED_ROWS });
    return {
      forward: rows(attentionMatrix(variant)),
      delta: { source: attentionDelta("f16", delta), rows: PLAIN_ROWS },
      query: rows(attentionMatrixBackward(variant, "query")),
      key: rows(attentionMatrixBackward(variant, "key")),
    };
  },
);

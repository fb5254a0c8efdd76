/**
 * All kernels for 16-bit floats too: those that compute in float32, behind ones that widen what they are given. Sums and
 * statistics stay float32; every result is rounded once, to nearest even.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { isHalf } from "../../../core/runtime/half/plain.ts";
import { halfAttention } from "./attention.ts";
import { type HalfContext, narrow, part, widen, workspaces } from "./context.ts";
import { halfElementwise } from "./elementwise.ts";
import { halfEmbeddingBackward } from "./embedding.ts";
import { halfMatmul } from "./matmul.ts";
import { halfNorms } from "./norms.ts";
import { halfReductions } from "./reduce.ts";
import { halfRows } from "./rows.ts";
import { halfStrided } from "./strided.ts";

/** The kernels of a context and their 16-bit twins. */
export function withHalf(context: HalfContext): Kernels {
  return {
    ...context.float32,
    ...halfElementwise(context),
    ...halfStrided(context),
    ...halfReductions(context),
    ...halfRows(context),
    ...halfNorms(context),
    ...halfAttention(context),
    matmul: halfMatmul(context),
    embeddingBackward: halfEmbeddingBackward(context),
    cast: halfCast(context),
  };
}

/** Conversions from and to 16-bit floats; others go to the kernel that has them all. */
function halfCast(context: HalfContext): Kernels["cast"] {
  return (source, target) => {
    const { dtype: from, length } = source;
    const { dtype: to } = target;
    const same = from === to || length !== target.length;
    if (!same && isHalf(from) && to === "float32") widen(context, source, target, 1, length);
    else if (!same && from === "float32" && isHalf(to)) narrow(context, source, target, 1, length);
    else if (!same && isHalf(from) && isHalf(to)) {
      const { tile } = context.sizes;
      const [wide] = workspaces(context.heap, [Math.min(length, tile)]);
      for (let first = 0; first < length; first += tile) {
        const count = Math.min(tile, length - first);
        widen(context, part(source, first, count), wide!, 1, count);
        narrow(context, wide!, part(target, first, count), 1, count);
      }
    } else context.float32.cast(source, target);
  };
}

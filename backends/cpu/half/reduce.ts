/**
 * Reductions of 16-bit floats: partial sums are float32, and results are rounded once.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels, ReduceOp } from "../../../core/contracts/kernels.ts";
import { isHalf } from "../../../core/runtime/half/plain.ts";
import { requireLength } from "../kernels/heap.ts";
import {
  anyHalf,
  commonHalf,
  type HalfContext,
  narrow,
  part,
  requireDType,
  widen,
  workspaces,
} from "./context.ts";
import { inTiles, read, spare, update, write } from "./tiles.ts";

/** The kernels; what has no 16-bit operand goes to the float32 ones. */
export function halfReductions(context: HalfContext): Pick<Kernels, "reduce" | "normPower"> {
  const { heap, float32, sizes } = context;
  return {
    reduce(op, x, out, outer, extent, inner, accumulate = false) {
      if (!anyHalf(x, out)) return float32.reduce(op, x, out, outer, extent, inner, accumulate);
      const kernel = `reduce ${op}`;
      requireDType(kernel, commonHalf(kernel, [x, out]), [x]);
      requireLength(kernel, x, outer * extent * inner);
      requireLength(kernel, out, outer * inner);
      if (extent * inner > sizes.tile) {
        for (let o = 0; o < outer; o++) {
          const slice = part(x, o * extent * inner, extent * inner);
          reduceSlice(context, op, slice, part(out, o * inner, inner), extent, accumulate);
        }
        return;
      }
      const target = accumulate ? update(out, inner) : write(out, inner);
      inTiles(context, kernel, outer, [read(x, extent * inner), target], ([a, b], _, count) =>
        float32.reduce(op, a!, b!, count, extent, inner, accumulate),
      );
    },
    normPower(x, out, p) {
      if (!anyHalf(x, out)) return float32.normPower(x, out, p);
      requireDType("normPower", commonHalf("normPower", [x, out]), [x]);
      requireLength("normPower", out, 1);
      let total = 0;
      inTiles(context, "normPower", x.length, [read(x), spare(out, 1)], ([a, one]) => {
        float32.normPower(a!, one!, p);
        const value = Number(heap.view(one!)[0]!);
        total = p === Number.POSITIVE_INFINITY ? Math.max(total, value) : total + value;
      });
      float32.fill(part(out, 0, 1), total);
    },
  };
}

/** Reduces [extent, columns] to [columns], in blocks that add up in one row of float32. */
function reduceSlice(
  context: HalfContext,
  op: ReduceOp,
  x: Span,
  out: Span,
  extent: number,
  accumulate: boolean,
): void {
  const { heap, float32, sizes } = context;
  const stride = out.length;
  const width = Math.min(stride, sizes.tile);
  const rows = Math.max(1, Math.floor(sizes.tile / width));
  const [source, sums] = workspaces(heap, [rows * width, width]);
  for (let column = 0; column < stride; column += width) {
    const columns = Math.min(width, stride - column);
    const target = part(out, column, columns);
    const total = isHalf(out.dtype) ? part(sums!, 0, columns) : target;
    if (accumulate && isHalf(out.dtype)) widen(context, target, total, 1, columns);
    for (let row = 0; row < extent; row += rows) {
      const count = Math.min(rows, extent - row);
      const block = part(source!, 0, count * columns);
      const from = part(x, row * stride + column, (count - 1) * stride + columns);
      widen(context, from, block, count, columns, stride);
      float32.reduce(op, block, total, 1, count, columns, accumulate || row > 0);
    }
    if (isHalf(out.dtype)) narrow(context, total, target, 1, columns);
  }
}

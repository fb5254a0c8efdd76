/**
 * Kernels over rows of 16-bit floats: softmax, cross entropy, rotary positions. Statistics and losses are float32.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { requireLength } from "../kernels/heap.ts";
import { targetColumns } from "../kernels/loss.ts";
import { requireRotary } from "../kernels/rotary.ts";
import { anyHalf, commonHalf, type HalfContext, part, requireDType } from "./context.ts";
import { inTiles, read, write } from "./tiles.ts";

type RowKernels = Pick<
  Kernels,
  "softmax" | "softmaxBackward" | "crossEntropy" | "crossEntropyBackward" | "rotary"
>;

/** The kernels; what has no 16-bit operand goes to the float32 ones. */
export function halfRows(context: HalfContext): RowKernels {
  const { heap, float32, sizes } = context;
  return {
    softmax(x, out, rows, columns, log) {
      if (!anyHalf(x, out)) return float32.softmax(x, out, rows, columns, log);
      requireDType("softmax", commonHalf("softmax", [x, out]), [x, out]);
      inTiles(context, "softmax", rows, [read(x, columns), write(out, columns)], ([a, b], _, count) =>
        float32.softmax(a!, b!, count, columns, log),
      );
    },
    softmaxBackward(y, gradient, out, rows, columns, log) {
      if (!anyHalf(y, gradient, out)) return float32.softmaxBackward(y, gradient, out, rows, columns, log);
      const kernel = "softmax backward";
      requireDType(kernel, commonHalf(kernel, [y, gradient, out]), [y, gradient, out]);
      const operands = [read(y, columns), read(gradient, columns), write(out, columns)];
      inTiles(context, kernel, rows, operands, ([a, g, b], _, count) =>
        float32.softmaxBackward(a!, g!, b!, count, columns, log),
      );
    },
    crossEntropy(logits, targets, losses, logSumExp, rows, columns) {
      if (!anyHalf(logits, losses, logSumExp)) {
        return float32.crossEntropy(logits, targets, losses, logSumExp, rows, columns);
      }
      commonHalf("crossEntropy", [logits, losses, logSumExp]);
      // All of them first: a tile would count its rows from its own beginning.
      targetColumns(heap, targets, rows, columns);
      const operands = [read(logits, columns), read(targets), write(losses), write(logSumExp)];
      inTiles(context, "crossEntropy", rows, operands, ([x, t, loss, sums], _, count) =>
        float32.crossEntropy(x!, t!, loss!, sums!, count, columns),
      );
    },
    crossEntropyBackward(logits, targets, logSumExp, gradient, dLogits, rows, columns) {
      if (!anyHalf(logits, logSumExp, gradient, dLogits)) {
        return float32.crossEntropyBackward(logits, targets, logSumExp, gradient, dLogits, rows, columns);
      }
      const kernel = "crossEntropy backward";
      commonHalf(kernel, [logits, logSumExp, gradient, dLogits]);
      targetColumns(heap, targets, rows, columns);
      const operands = [
        read(logits, columns),
        read(targets),
        read(logSumExp),
        read(gradient),
        write(dLogits, columns),
      ];
      inTiles(context, kernel, rows, operands, ([x, t, sums, g, dx], _, count) =>
        float32.crossEntropyBackward(x!, t!, sums!, g!, dx!, count, columns),
      );
    },
    rotary(args) {
      const { x, out, cos, sin, rows, length, heads, headDim } = args;
      if (!anyHalf(x, out)) return float32.rotary(args);
      requireDType("rotary", commonHalf("rotary", [x, out]), [x, out]);
      requireRotary(args);
      const width = heads * headDim;
      const half = headDim / 2;
      for (const span of [x, out]) requireLength("rotary", span, rows * width);
      for (const span of [cos, sin]) requireLength("rotary angles", span, length * half);
      const most = Math.max(1, Math.floor(sizes.tile / Math.max(1, width)));
      // No tile goes beyond the last row of angles, so that each meets one run of them.
      for (let first = 0; first < rows; ) {
        const angle = first % length;
        const run = Math.min(rows - first, length - angle, most);
        const [from, to] = [x, out].map((span) => part(span, first * width, run * width));
        const [c, s] = [cos, sin].map((span) => part(span, angle * half, run * half));
        inTiles(context, "rotary", run, [read(from, width), write(to, width)], ([a, b]) =>
          float32.rotary({ ...args, x: a!, out: b!, cos: c!, sin: s!, rows: run, length: run }),
        );
        first += run;
      }
    },
  };
}

/**
 * Row kernels (softmax, cross entropy, layer normalisation) and AdamW in WebAssembly SIMD for float32; whatever else
 * comes goes to the plain twin.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { type Heap, requireLength, requireSame } from "../kernels/heap.ts";
import { targetColumns } from "../kernels/loss.ts";
import type { WasmKernels } from "../wasm/load.ts";
import { isFloat32 } from "./elementwise.ts";

type RowKernels = Pick<
  Kernels,
  | "softmax"
  | "softmaxBackward"
  | "crossEntropy"
  | "crossEntropyBackward"
  | "layerNorm"
  | "layerNormBackward"
  | "adamw"
>;

/** The fast row kernels. */
export function fastRows(plain: Kernels, heap: Heap, wasm: WasmKernels): RowKernels {
  return {
    softmax(x, out, rows, columns, log) {
      if (!isFloat32(x, out)) return plain.softmax(x, out, rows, columns, log);
      for (const span of [x, out]) requireLength("softmax", span, rows * columns);
      wasm.softmax(heap.address(x), heap.address(out), rows, columns, +log);
    },
    softmaxBackward(y, gradient, out, rows, columns, log) {
      if (!isFloat32(y, gradient, out)) return plain.softmaxBackward(y, gradient, out, rows, columns, log);
      for (const span of [y, gradient, out]) requireLength("softmax backward", span, rows * columns);
      wasm.softmaxBackward(heap.address(y), heap.address(gradient), heap.address(out), rows, columns, +log);
    },
    crossEntropy(logits, targets, losses, logSumExp, rows, columns) {
      if (!isFloat32(logits, losses, logSumExp)) {
        return plain.crossEntropy(logits, targets, losses, logSumExp, rows, columns);
      }
      requireLength("crossEntropy", logits, rows * columns);
      for (const span of [losses, logSumExp]) requireLength("crossEntropy", span, rows);
      const chosen = targetAddress(heap, targets, rows, columns);
      const [px, pl, ps] = [heap.address(logits), heap.address(losses), heap.address(logSumExp)];
      wasm.crossEntropy(px, chosen, pl, ps, rows, columns);
    },
    crossEntropyBackward(logits, targets, logSumExp, gradient, dLogits, rows, columns) {
      if (!isFloat32(logits, logSumExp, gradient, dLogits)) {
        return plain.crossEntropyBackward(logits, targets, logSumExp, gradient, dLogits, rows, columns);
      }
      for (const span of [logits, dLogits]) requireLength("crossEntropy backward", span, rows * columns);
      for (const span of [logSumExp, gradient]) requireLength("crossEntropy backward", span, rows);
      const chosen = targetAddress(heap, targets, rows, columns);
      const [px, ps] = [heap.address(logits), heap.address(logSumExp)];
      wasm.crossEntropyBackward(px, chosen, ps, heap.address(gradient), heap.address(dLogits), rows, columns);
    },
    layerNorm(args) {
      const { x, weight, bias, out, mean, rstd, rows, columns, eps } = args;
      if (!isFloat32(x, weight, bias ?? x, out, mean, rstd)) return plain.layerNorm(args);
      for (const span of [x, out]) requireLength("layerNorm", span, rows * columns);
      for (const span of [weight, bias ?? weight]) requireLength("layerNorm", span, columns);
      for (const span of [mean, rstd]) requireLength("layerNorm", span, rows);
      const [px, pw, pb] = [
        heap.address(x),
        heap.address(weight),
        bias === undefined ? 0 : heap.address(bias),
      ];
      const [po, pm, pr] = [heap.address(out), heap.address(mean), heap.address(rstd)];
      wasm.layerNorm(px, pw, pb, po, pm, pr, rows, columns, eps);
    },
    layerNormBackward(args) {
      const { x, weight, mean, rstd, gradient, dx, dWeight, dBias, rows, columns } = args;
      if (!isFloat32(x, weight, mean, rstd, gradient, dx ?? x, dWeight ?? x, dBias ?? x)) {
        return plain.layerNormBackward(args);
      }
      for (const span of [x, gradient, dx ?? x]) requireLength("layerNorm backward", span, rows * columns);
      for (const span of [weight, dWeight ?? weight, dBias ?? weight]) {
        requireLength("layerNorm backward", span, columns);
      }
      for (const span of [mean, rstd]) requireLength("layerNorm backward", span, rows);
      const padded = Math.ceil(columns / 4) * 4;
      const sums = heap.scratch(16 * padded);
      const memory = heap.float64();
      const first = sums / 8;
      memory.fill(0, first, first + 2 * padded);
      const [px, pw, pm, pr] = [
        heap.address(x),
        heap.address(weight),
        heap.address(mean),
        heap.address(rstd),
      ];
      const pd = dx === undefined ? 0 : heap.address(dx);
      wasm.layerNormBackward(
        px,
        pw,
        pm,
        pr,
        heap.address(gradient),
        pd,
        sums,
        sums + 8 * padded,
        rows,
        columns,
      );
      const floats = heap.float32();
      const outputs = [
        [dWeight, first],
        [dBias, first + padded],
      ] as const;
      for (const [out, from] of outputs) {
        if (out !== undefined) floats.set(memory.subarray(from, from + columns), heap.address(out) / 4);
      }
    },
    adamw(args) {
      const { parameter, gradient, expAvg, expAvgSq, lr, beta1, beta2, eps, weightDecay, step } = args;
      if (!isFloat32(parameter, gradient, expAvg, expAvgSq)) return plain.adamw(args);
      requireSame("adamw", [parameter, gradient, expAvg, expAvgSq]);
      wasm.adamw(
        heap.address(parameter),
        heap.address(gradient),
        heap.address(expAvg),
        heap.address(expAvgSq),
        parameter.length,
        1 - lr * weightDecay,
        lr / (1 - beta1 ** step),
        1 / Math.sqrt(1 - beta2 ** step),
        1 - beta1,
        beta2,
        1 - beta2,
        eps,
      );
    },
  };
}

/** Where checked int32 targets lie: as given, or as a copy of int64 ones. */
function targetAddress(heap: Heap, targets: Span, rows: number, columns: number): number {
  const chosen = targetColumns(heap, targets, rows, columns);
  if (chosen instanceof Int32Array) return heap.address(targets);
  const address = heap.scratch(4 * rows);
  (heap.at("int32", address, rows) as Int32Array).set(chosen);
  return address;
}

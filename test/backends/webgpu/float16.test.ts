/**
 * Kernels in float16 against the same kernels in float32: of equal inputs, results differ by the rounding of what is
 * stored alone.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { createWebgpuBackend } from "../../../backends/webgpu/backend.ts";
import type { Backend, Span } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType, newHostArray } from "../../../core/contracts/dtype.ts";
import type { BinaryOp, ReduceOp, UnaryOp } from "../../../core/contracts/kernels.ts";
import { randomUniform, streamKey } from "../../../core/tensor/random.ts";
import { testGpu } from "./gpu.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(60_000);

type Float = "float16" | "float32";

/** Spans of one run: in float16 or, from the same numbers, in float32. */
class Run {
  readonly backend: Backend;
  readonly dtype: Float;
  readonly #offset: number;
  #stream = 0;

  constructor(backend: Backend, dtype: Float, offset: number) {
    this.backend = backend;
    this.dtype = dtype;
    this.#offset = offset;
  }

  /** Numbers in [low, high), rounded to float16; the same in both runs. */
  put(length: number, low = -2, high = 2): Span {
    const uniform = new Float64Array(length);
    randomUniform(streamKey(3, "float16", this.#stream++), 0, uniform);
    const values = Float16Array.from(uniform, (u) => low + (high - low) * u);
    const span = this.out(length);
    this.backend.write(span, this.dtype === "float16" ? values : new Float32Array(values));
    return span;
  }

  out(length: number, dtype: DType = this.dtype): Span {
    const bytes = (this.#offset + length) * DTYPES[dtype].bytes;
    const buffer = this.backend.allocate(bytes, "activation");
    const whole = { buffer, dtype, offset: 0, length: this.#offset + length };
    this.backend.write(whole, (newHostArray(dtype, whole.length) as Float32Array).fill(Number.NaN));
    return { buffer, dtype, offset: this.#offset, length };
  }

  indices(length: number, below: number): Span {
    const uniform = new Float64Array(length);
    randomUniform(streamKey(4, "float16", this.#stream++), 0, uniform);
    const buffer = this.backend.allocate(8 * length, "activation");
    const span: Span = { buffer, dtype: "int64", offset: 0, length };
    this.backend.write(
      span,
      BigInt64Array.from(uniform, (u) => BigInt(Math.floor(u * below))),
    );
    return span;
  }
}

/** Runs `compute` in both dtypes, and compares what it gives within `ulps` of float16. */
function sameAsFloat32(name: string, compute: (run: Run) => readonly Span[], ulps = 1): void {
  testGpu(`${name} in float16 is float32's, rounded`, {}, async (backend) => {
    for (const offset of [0, 3]) {
      const results: Float32Array[][] = [];
      for (const dtype of ["float32", "float16"] as const) {
        const spans = compute(new Run(backend, dtype, offset));
        const hosts = await Promise.all(spans.map((span) => backend.read(span)));
        results.push(hosts.map((host) => Float32Array.from(host as Float32Array)));
      }
      const [wanted, got] = results as [Float32Array[], Float32Array[]];
      for (const [i, want] of wanted.entries()) {
        for (const [j, value] of want.entries()) {
          const unit = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(value) || 1e-9))) - 10);
          const difference = Math.abs(got[i]![j]! - value);
          if (difference <= ulps * unit) continue;
          expect.unreachable(`result ${i}, element ${j} is ${got[i]![j]}, wanted ${value}, offset ${offset}`);
        }
      }
    }
  });
}

const UNARY: UnaryOp[] = ["neg", "abs", "exp", "tanh", "sigmoid", "relu", "gelu", "geluTanh", "silu"];
for (const op of UNARY) {
  sameAsFloat32(op, (run) => {
    const [x, out] = [run.put(517), run.out(517)];
    run.backend.kernels.unary(op, x, out);
    return [out];
  });
  sameAsFloat32(`${op} backward`, (run) => {
    const [x, y, gradient] = [run.put(517), run.put(517), run.put(517)];
    run.backend.kernels.unaryBackward(op, x, y, gradient, gradient);
    return [gradient];
  });
}

for (const op of ["add", "mul", "div", "maximum", "less"] as BinaryOp[]) {
  sameAsFloat32(`${op}, broadcast too`, (run) => {
    const [a, b, row] = [run.put(15 * 17), run.put(15 * 17, 0.5), run.put(17, 0.5)];
    const [out, spread] = [run.out(15 * 17), run.out(15 * 17)];
    const contiguous = (span: Span) => ({ span, strides: [17, 1] });
    run.backend.kernels.binary(op, contiguous(a), contiguous(b), out, [15, 17]);
    run.backend.kernels.binary(op, contiguous(a), { span: row, strides: [0, 1] }, spread, [15, 17]);
    return [out, spread];
  });
}

for (const op of ["sum", "max"] as ReduceOp[]) {
  sameAsFloat32(`reduce ${op}`, (run) => {
    const x = run.put(9 * 31 * 6);
    const [rows, columns] = [run.out(54), run.out(54)];
    run.backend.kernels.reduce(op, x, rows, 54, 31, 1);
    run.backend.kernels.reduce(op, x, columns, 9, 31, 6);
    return [rows, columns];
  });
}

sameAsFloat32("softmax and its gradient", (run) => {
  const [x, gradient, y, dx] = [run.put(7 * 131), run.put(7 * 131), run.out(7 * 131), run.out(7 * 131)];
  run.backend.kernels.softmax(x, y, 7, 131, false);
  run.backend.kernels.softmaxBackward(run.put(7 * 131, 0, 0.1), gradient, dx, 7, 131, false);
  return [y, dx];
});

for (const columns of [64, 67]) {
  sameAsFloat32(
    `layerNorm of ${columns} columns and its gradients`,
    (run) => {
      const rows = 70;
      const [x, weight, bias] = [run.put(rows * columns), run.put(columns), run.put(columns)];
      const gradient = run.put(rows * columns);
      const [out, dx] = [run.out(rows * columns), run.out(rows * columns)];
      const [dWeight, dBias] = [run.out(columns), run.out(columns)];
      // Statistics stay in float32, whatever the rows are.
      const [mean, rstd] = [run.out(rows, "float32"), run.out(rows, "float32")];
      run.backend.kernels.layerNorm({ x, weight, bias, out, mean, rstd, rows, columns, eps: 1e-5 });
      const given = { x, weight, mean, rstd, gradient, rows, columns };
      run.backend.kernels.layerNormBackward({ ...given, dx, dWeight, dBias });
      return [out, mean, rstd, dx, dWeight, dBias];
    },
    1,
  );
}

for (const columns of [64, 67]) {
  sameAsFloat32(`rmsNorm of ${columns} columns and its gradients`, (run) => {
    const rows = 70;
    const [x, weight, gradient] = [run.put(rows * columns), run.put(columns), run.put(rows * columns)];
    const [out, dx, dWeight] = [run.out(rows * columns), run.out(rows * columns), run.out(columns)];
    const rstd = run.out(rows, "float32");
    run.backend.kernels.rmsNorm({ x, weight, out, rstd, rows, columns, eps: 1e-5 });
    run.backend.kernels.rmsNormBackward({ x, weight, rstd, gradient, dx, dWeight, rows, columns });
    return [out, rstd, dx, dWeight];
  });
}

for (const headDim of [16, 6]) {
  sameAsFloat32(`rotary of heads of ${headDim}, by float32 angles,`, (run) => {
    const [rows, length, heads] = [12, 6, 3];
    const [x, turned] = [run.put(rows * heads * headDim), run.out(rows * heads * headDim)];
    const table = (of: (angle: number) => number): Span => {
      const span = run.out((length * headDim) / 2, "float32");
      run.backend.write(
        span,
        Float32Array.from({ length: span.length }, (_, i) => of(i)),
      );
      return span;
    };
    const args = { x, cos: table(Math.cos), sin: table(Math.sin), rows, length, heads, headDim };
    run.backend.kernels.rotary({ ...args, out: turned, inverse: false });
    run.backend.kernels.rotary({ ...args, out: x, inverse: true });
    return [turned, x];
  });
}

for (const op of ["silu", "geluTanh"] as const) {
  sameAsFloat32(`gated ${op} and its gradients`, (run) => {
    const [gate, x, gradient] = [run.put(517), run.put(517), run.put(517)];
    const [out, dGate, dX] = [run.out(517), run.out(517), run.out(517)];
    run.backend.kernels.gated(op, gate, x, out);
    run.backend.kernels.gatedBackward({ op, gate, x, gradient, dGate, dX });
    return [out, dGate, dX];
  });
}

sameAsFloat32("embedding and its gradient", (run) => {
  const [table, indices] = [run.put(20 * 36), run.indices(50, 20)];
  const [out, dTable] = [run.out(50 * 36), run.out(20 * 36)];
  run.backend.kernels.embedding(table, indices, out, 50, 36);
  run.backend.kernels.embeddingBackward(run.put(50 * 36), indices, dTable, 50, 36);
  return [out, dTable];
});

sameAsFloat32("crossEntropy and its gradient", (run) => {
  const [logits, targets] = [run.put(9 * 101, -8, 8), run.indices(9, 101)];
  const [losses, sums] = [run.out(9, "float32"), run.out(9, "float32")];
  const [dLogits, halfLosses, halfSums] = [run.out(9 * 101), run.out(9), run.out(9)];
  run.backend.kernels.crossEntropy(logits, targets, losses, sums, 9, 101);
  run.backend.kernels.crossEntropy(logits, targets, halfLosses, halfSums, 9, 101);
  const ones = run.out(9, "float32");
  run.backend.kernels.fill(ones, 1);
  run.backend.kernels.crossEntropyBackward(logits, targets, sums, ones, dLogits, 9, 101);
  return [losses, sums, halfLosses, halfSums, dLogits];
});

sameAsFloat32("affine, dropout, fill and an adding copy", (run) => {
  const [scaled, dropped, sum, filled] = [run.put(517), run.put(517), run.put(517), run.out(517)];
  const { kernels } = run.backend;
  kernels.affine(scaled, scaled, 1.5, 0.25);
  kernels.dropout(dropped, dropped, 0.3, { high: 5, low: 6 });
  kernels.fill(filled, 0.1);
  const box = { sizes: [517], sourceOffset: 0, sourceStrides: [1], targetOffset: 0, targetStrides: [1] };
  kernels.copy(run.put(517), sum, [box], true);
  return [scaled, dropped, sum, filled];
});

sameAsFloat32("adamw and sgd with momentum", (run) => {
  const [parameter, gradient] = [run.put(101), run.put(101)];
  const [expAvg, expAvgSq] = [run.put(101), run.put(101, 0.5)];
  const rates = { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, step: 3 };
  run.backend.kernels.adamw({ parameter, gradient, expAvg, expAvgSq, ...rates });
  const momentum = { lr: 0.1, momentum: 0.9, dampening: 0, weightDecay: 0.01, nesterov: true, first: false };
  const [velocity, moved] = [run.put(101), run.put(101)];
  run.backend.kernels.sgd({ parameter: moved, gradient, momentumBuffer: velocity, ...momentum });
  return [parameter, expAvg, expAvgSq, velocity, moved];
});

test("without float16, kernels refuse it by name and storage still works", async () => {
  const backend = await createWebgpuBackend({ settings: { f16: "off", checks: "on" } });
  expect(backend.capabilities.computeDTypes).toEqual(["float32"]);
  const half: Span = { buffer: backend.allocate(6, "activation"), dtype: "float16", offset: 0, length: 3 };
  const wide: Span = { buffer: backend.allocate(12, "activation"), dtype: "float32", offset: 0, length: 3 };
  expect(() => backend.kernels.unary("exp", half, half)).toThrow("float16 is not computed in");
  backend.write(wide, new Float32Array([1, 65504, 0.1]));
  backend.kernels.cast(wide, half);
  expect([...(await backend.read(half))]).toEqual([...new Float16Array([1, 65504, 0.1])]);
  await backend.dispose();
});

/**
 * 16-bit floats on the CPU beyond the sizes of the conformance suite: over many tiles, results are the float32 kernel's
 * on the same numbers, rounded once.
 */
import { describe, expect, test } from "bun:test";
import { createCpuBackend } from "../../../backends/cpu/backend.ts";
import type { Backend, Span } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType } from "../../../core/contracts/dtype.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { randomNormal, streamKey } from "../../../core/tensor/random.ts";

type Half = "float16" | "bfloat16";
const HALVES: readonly Half[] = ["float16", "bfloat16"];
/** Three tiles and a rest that no vector divides. */
const LENGTH = 3 * 16384 + 5;

const backend = await createCpuBackend({});
const { kernels } = backend;

function span(dtype: DType, length: number, of: Backend = backend): Span {
  const buffer = of.allocate(length * DTYPES[dtype].bytes, "activation");
  return { buffer, dtype, offset: 0, length };
}

/** Normal numbers in float32 that are numbers of `dtype` too. */
function numbers(dtype: Half, length: number, stream: number): Span {
  const values = new Float32Array(length);
  randomNormal(streamKey(stream, "half"), 0, values);
  const wide = span("float32", length);
  backend.write(wide, values);
  const narrow = cast(wide, dtype);
  kernels.cast(narrow, wide);
  backend.release(narrow.buffer);
  return wide;
}

function cast(source: Span, dtype: DType): Span {
  const target = span(dtype, source.length);
  kernels.cast(source, target);
  return target;
}

function bits(source: Span): number[] {
  return [...new Uint16Array((backend.hostView(source) as Uint16Array).slice().buffer)];
}

/** Runs a kernel on float32 and on 16-bit copies of its inputs; fails unless outputs are the same, rounded. */
function expectRounded(
  dtype: Half,
  inputs: readonly Span[],
  outputs: readonly number[],
  run: (inputs: Span[], outputs: Span[]) => void,
): void {
  const wide = outputs.map((length) => span("float32", length));
  run(
    inputs.map((input) => cast(input, "float32")),
    wide,
  );
  const narrow = outputs.map((length) => span(dtype, length));
  run(
    inputs.map((input) => cast(input, dtype)),
    narrow,
  );
  for (const [i, output] of narrow.entries()) {
    const [got, want] = [bits(output), bits(cast(wide[i]!, dtype))];
    const odd = got.findIndex((word, at) => word !== want[at]);
    if (odd >= 0) expect.unreachable(`output ${i}, element ${odd}: ${got[odd]}, wanted ${want[odd]}`);
  }
}

describe.each(HALVES)("%s over several tiles", (dtype) => {
  const [a, b, c, d] = [1, 2, 3, 4].map((stream) => numbers(dtype, LENGTH, stream)) as [
    Span,
    Span,
    Span,
    Span,
  ];

  test("elementwise kernels are float32's, rounded once", () => {
    expectRounded(dtype, [a], [LENGTH], ([x], [out]) => kernels.unary("geluTanh", x!, out!));
    expectRounded(dtype, [a, b, c], [LENGTH], ([x, y, g], [out]) =>
      kernels.unaryBackward("silu", x!, y!, g!, out!),
    );
    expectRounded(dtype, [a], [LENGTH], ([x], [out]) => kernels.affine(x!, out!, 1.7, -0.3));
    expectRounded(dtype, [a, b], [LENGTH], ([x, y], [out]) => kernels.gated("silu", x!, y!, out!));
    expectRounded(dtype, [a], [LENGTH], ([x], [out]) => kernels.dropout(x!, out!, 0.3, { high: 5, low: 6 }));
  });

  test("optimizer updates are float32's, rounded once", () => {
    const rates = { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, step: 3 };
    const squares = span("float32", LENGTH);
    const strided = { span: d, strides: [1] };
    kernels.binary("mul", strided, strided, squares, [LENGTH]);
    const expAvgSq = cast(squares, dtype);
    kernels.cast(expAvgSq, squares);
    expectRounded(dtype, [a, b, c, squares], [LENGTH, LENGTH, LENGTH], (inputs, outputs) => {
      const [parameter, gradient, expAvg, square] = inputs as [Span, Span, Span, Span];
      kernels.adamw({ parameter, gradient, expAvg, expAvgSq: square, ...rates });
      for (const [i, state] of [parameter, expAvg, square].entries())
        kernels.copy(state, outputs[i]!, [whole]);
    });
  });

  const whole = {
    ...{ sizes: [LENGTH], sourceOffset: 0, sourceStrides: [1], targetOffset: 0, targetStrides: [1] },
  };

  test("binary kernels are float32's, rounded once: broadcast, transposed and in place too", () => {
    const [rows, columns] = [190, 258];
    const contiguous = (of: Span | undefined) => ({ span: of!, strides: [columns, 1] });
    const sizes = [rows, columns];
    const n = rows * columns;
    for (const strides of [
      [columns, 1],
      [0, 1],
      [1, 0],
      [1, rows],
    ]) {
      expectRounded(dtype, [a, b], [n], ([x, y], [out]) =>
        kernels.binary("mul", contiguous(x), { span: y!, strides }, out!, sizes),
      );
    }
    expectRounded(dtype, [a, b], [LENGTH], ([x, y], [out]) => {
      kernels.binary("add", { span: x!, strides: [1] }, { span: y!, strides: [1] }, x!, [LENGTH]);
      kernels.copy(x!, out!, [whole]);
    });
  });

  test("copies that add do so in float32 and leave the rest alone", () => {
    const [rows, columns] = [150, 200];
    const box = {
      ...{ sizes: [rows, columns], sourceOffset: 3, sourceStrides: [1, rows] },
      ...{ targetOffset: 7, targetStrides: [columns + 30, 1] },
    };
    expectRounded(dtype, [a, b], [LENGTH], ([x, y], [out]) => {
      kernels.copy(x!, y!, [box], true);
      kernels.copy(y!, out!, [whole]);
    });
  });

  test("row kernels are float32's, rounded once, with statistics the same", () => {
    const [rows, columns] = [70, 700];
    const statistics: Span[][] = [];
    expectRounded(dtype, [a, b, c], [rows * columns, rows * columns], ([x, weight, bias], [out, soft]) => {
      const [mean, rstd] = [span("float32", rows), span("float32", rows)];
      kernels.layerNorm({
        ...{ x: x!, weight: weight!, bias: bias!, out: out!, mean, rstd, rows, columns, eps: 1e-5 },
      });
      kernels.softmax(x!, soft!, rows, columns, false);
      statistics.push([mean, rstd]);
    });
    const [wide, narrow] = statistics.map((spans) => spans.map((of) => [...backend.hostView(of)!]));
    expect(narrow).toEqual(wide!);
  });

  test("long reductions add up in float32: what 16 bits would lose stays", () => {
    const ones = span(dtype, LENGTH);
    kernels.fill(ones, 1);
    const [total, norm] = [span("float32", 1), span("float32", 1)];
    kernels.reduce("sum", ones, total, 1, LENGTH, 1);
    kernels.normPower(ones, norm, 2);
    expect(backend.hostView(total)![0]).toBe(LENGTH);
    expect(backend.hostView(norm)![0]).toBe(LENGTH);
    const columns = span(dtype, 5);
    kernels.reduce("sum", ones, columns, 1, 1001, 5);
    expect(bits(columns)).toEqual(bits(numbersOf(dtype, Array(5).fill(1001))));
  });

  test("a product deeper and wider than a block is rounded once", () => {
    const [m, n, k] = [3, 1030, 1100];
    const [left, right] = [numbers(dtype, m * k, 5), numbers(dtype, k * n, 6)];
    const operand = (of: Span, rowStride: number) => ({
      span: of,
      rowStride,
      batchStride: 0,
      transposed: false,
    });
    const product = (x: Span, y: Span, out: Span): void =>
      kernels.matmul({
        ...{ a: operand(x, k), b: operand(y, n), out: operand(out, n), batch: 1, m, n, k },
      });
    const [wide, narrow] = [span("float32", m * n), span(dtype, m * n)];
    product(cast(left, dtype), cast(right, dtype), wide);
    product(cast(left, dtype), cast(right, dtype), narrow);
    expect(bits(narrow)).toEqual(bits(cast(wide, dtype)));
    const exact = span("float32", m * n);
    product(left, right, exact);
    const want = backend.hostView(exact) as Float32Array;
    for (const [i, value] of (backend.hostView(wide) as Float32Array).entries()) {
      expect(Math.abs(value - want[i]!)).toBeLessThan(1e-3);
    }
  });

  test("gradients of an embedding add up in float32, band by band", () => {
    const [tableRows, rows, columns] = [30_000, 400, 100];
    const indices = span("int32", rows);
    backend.write(
      indices,
      Int32Array.from({ length: rows }, (_, i) => (i % 7) * 4000),
    );
    expectRounded(dtype, [a], [tableRows * columns], ([gradient], [table]) =>
      kernels.embeddingBackward(gradient!, indices, table!, rows, columns),
    );
  });
});

function numbersOf(dtype: DType, values: readonly number[]): Span {
  const wide = span("float32", values.length);
  backend.write(wide, Float32Array.from(values));
  return cast(wide, dtype);
}

describe.each(HALVES)("%s", (dtype) => {
  test("infinity, not-a-number, subnormals and overflow come out of a kernel right", () => {
    const least = dtype === "float16" ? 2 ** -24 : 2 ** -133;
    const most = dtype === "float16" ? 65504 : 2 ** 127 * (2 - 2 ** -7);
    const x = numbersOf(dtype, [Number.NaN, Number.POSITIVE_INFINITY, least, most, -most, -0]);
    const out = span("float32", 6);
    const doubled = span(dtype, 6);
    kernels.affine(x, doubled, 2, 0);
    kernels.cast(doubled, out);
    const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;
    expect([...backend.hostView(out)!]).toEqual([nan, infinity, 2 * least, infinity, -infinity, 0]);
    kernels.affine(x, doubled, 0.5, 0);
    kernels.cast(doubled, out);
    // Half of the least lies halfway to 0, which is even.
    expect([...backend.hostView(out)!]).toEqual([nan, infinity, 0, most / 2, -most / 2, 0]);
  });

  test("a condition of either zero is false, and chosen bits stay as they are", () => {
    const condition = numbersOf(dtype, [0, -0, 1, -2, Number.NaN]);
    const [yes, no] = [numbersOf(dtype, [1, 2, 3, 4, 5]), numbersOf(dtype, [-1, -2, -3, -4, -5])];
    const out = span(dtype, 5);
    const contiguous = (of: Span) => ({ span: of, strides: [1] });
    kernels.where(contiguous(condition), contiguous(yes), contiguous(no), out, [5]);
    expect(bits(out)).toEqual(bits(numbersOf(dtype, [-1, -2, 3, 4, 5])));
  });

  test("operands of other dtypes are refused by name", () => {
    const [x, wide, integers] = [span(dtype, 4), span("float32", 4), span("int32", 4)];
    const other = span(dtype === "float16" ? "bfloat16" : "float16", 4);
    for (const wrong of [wide, integers, other]) {
      expect(() => kernels.unary("exp", x, wrong)).toThrow(ShapeError);
      expect(() => kernels.softmax(x, wrong, 1, 4, false)).toThrow(ShapeError);
      const strided = (of: Span) => ({ span: of, strides: [1] });
      expect(() => kernels.binary("add", strided(x), strided(wrong), x, [4])).toThrow(ShapeError);
      expect(() => kernels.where(strided(x), strided(x), strided(wrong), x, [4])).toThrow(ShapeError);
      expect(() => kernels.embedding(x, integers, wrong, 1, 4)).toThrow(ShapeError);
      const matrix = (of: Span) => ({ span: of, rowStride: 2, batchStride: 0, transposed: false });
      const product = { a: matrix(x), b: matrix(wrong), out: matrix(x), batch: 1, m: 2, n: 2, k: 2 };
      expect(() => kernels.matmul(product)).toThrow(ShapeError);
    }
    expect(() => kernels.softmax(x, other, 1, 4, false)).toThrow("operands are");
  });

  test("a wrong target is named by its place among all rows", () => {
    const [rows, columns] = [40, 1000];
    const logits = span(dtype, rows * columns);
    kernels.fill(logits, 0);
    const targets = span("int32", rows);
    backend.write(
      targets,
      Int32Array.from({ length: rows }, (_, i) => (i === 30 ? 1000 : 1)),
    );
    const [losses, sums] = [span("float32", rows), span("float32", rows)];
    expect(() => kernels.crossEntropy(logits, targets, losses, sums, rows, columns)).toThrow(
      "target 1000 of row 30",
    );
  });

  test("kernels need no room for a float32 copy of what they are given", async () => {
    // Two tensors of 20 MiB fit into 48 MiB, one of them in float32 beside them would not.
    const hostMemory = new WebAssembly.Memory({ initial: 16, maximum: 768, shared: true });
    const small = await createCpuBackend({ hostMemory });
    const n = 10 * 2 ** 20;
    const [x, out] = [span(dtype, n, small), span(dtype, n, small)];
    small.kernels.fill(x, 1);
    small.kernels.unary("neg", x, out);
    small.kernels.binary("add", { span: x, strides: [1] }, { span: out, strides: [1] }, out, [n]);
    small.kernels.affine(out, out, 1, 2);
    small.kernels.softmax(out, x, 2048, n / 2048, true);
    const [sum, sums] = [span(dtype, 1, small), span("float32", 1, small)];
    small.kernels.reduce("max", out, sum, 1, n, 1);
    small.kernels.normPower(out, sums, Number.POSITIVE_INFINITY);
    expect(small.hostView(sums)![0]).toBe(2);
    expect(() => small.allocate(4 * n, "activation")).toThrow();
    await small.dispose();
  });
});

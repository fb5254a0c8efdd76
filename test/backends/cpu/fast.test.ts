/**
 * WebAssembly kernels against their plain twins, at the sizes of real models and over the whole range of inputs.
 */
import { expect, test } from "bun:test";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import type { Backend, Span } from "../../../core/contracts/backend.ts";
import type { UnaryOp } from "../../../core/contracts/kernels.ts";
import { randomNormal, streamKey } from "../../../core/tensor/random.ts";

const plain = await cpuBackend.create({ settings: { matmul: "plain", kernels: "plain" } });
const fast = await cpuBackend.create({ settings: { matmul: "wasm", kernels: "fast" } });

function put(backend: Backend, values: Float32Array): Span {
  const buffer = backend.allocate(values.byteLength, "activation");
  const span: Span = { buffer, dtype: "float32", offset: 0, length: values.length };
  backend.write(span, values);
  return span;
}

function normal(length: number, name: string): Float32Array {
  const out = new Float32Array(length);
  randomNormal(streamKey(1, name), 0, out);
  return out;
}

/** Runs a kernel on both backends over copies of the inputs; the largest difference relative to `1 + |plain|`. */
function difference(inputs: Float32Array[], body: (backend: Backend, spans: Span[]) => void): number {
  const results = [plain, fast].map((backend) => {
    const spans = inputs.map((values) => put(backend, values));
    body(backend, spans);
    const values = spans.map((span) => backend.hostView(span)!.slice() as Float32Array);
    for (const { buffer } of spans) backend.release(buffer);
    return values;
  });
  let worst = 0;
  for (const [n, want] of results[0]!.entries()) {
    for (const [i, w] of want.entries()) {
      const gap = Math.abs(results[1]![n]![i]! - w) / (1 + Math.abs(w));
      if (!(gap <= worst) && results[1]![n]![i] !== w) worst = gap;
    }
  }
  return worst;
}

test("elementary functions keep their relative error from the twin over their whole range", () => {
  const values = Float32Array.from({ length: 200_001 }, (_, i) => (i - 100_000) / 1130);
  const out = new Float32Array(values.length);
  for (const op of ["exp", "tanh", "sigmoid", "silu", "geluTanh"] as UnaryOp[]) {
    const [x, y, z] = [put(plain, values), put(plain, out), put(fast, values)];
    plain.kernels.unary(op, x, y);
    fast.kernels.unary(op, z, z);
    const [want, got] = [plain.hostView(y)!, fast.hostView(z)!];
    for (let i = 0; i < values.length; i++) {
      const w = Number(want[i]);
      // geluTanh's argument grows with x cubed, and so does the rounding of its exponential.
      // Where e^-x overflows, sigmoid and what is made of it are 0 instead of something below 3e-37.
      const relative = op === "geluTanh" ? 2e-5 : 3e-7;
      const gap = Math.abs(Number(got[i]) - w);
      if (gap > relative * Math.abs(w) + 3e-37) {
        expect.unreachable(`${op}(${values[i]}) is ${got[i]}, the twin gives ${w}`);
      }
    }
  }
});

test("exp goes through the subnormal range to 0 and up to Infinity", () => {
  const inputs = new Float32Array([-87.5, -95, -103, -104, -200, 88.7, 88.8, 100, 0]);
  const x = put(fast, inputs);
  fast.kernels.unary("exp", x, x);
  const want = inputs.map((v) => Math.exp(v));
  const got = [...fast.hostView(x)!].map(Number);
  for (const [i, w] of want.entries()) {
    expect(
      w === got[i] || Math.abs(got[i]! - w) <= 1e-6 * w + 1.5e-45,
      `exp case ${i}: ${got[i]}, ${w}`,
    ).toBe(true);
  }
});

test("row kernels agree with the twin at the benchmark's sizes", () => {
  const [rows, columns] = [256, 257];
  const wide = normal(rows * columns, "x").map((v) => 4 * v);
  const blank = new Float32Array(rows * columns);
  for (const log of [false, true]) {
    expect(
      difference([wide, blank], ({ kernels }, [x, y]) => kernels.softmax(x!, y!, rows, columns, log)),
    ).toBeLessThan(1e-6);
  }
  const [weight, bias, g] = [normal(columns, "w"), normal(columns, "b"), normal(rows * columns, "g")];
  const [mean, rstd] = [new Float32Array(rows), new Float32Array(rows)];
  const inputs = [
    wide,
    weight,
    bias,
    blank,
    mean,
    rstd,
    g,
    blank,
    new Float32Array(columns),
    new Float32Array(columns),
  ];
  const gap = difference(inputs, ({ kernels }, spans) => {
    const [x, w, b, out, m, r, gradient, dx, dWeight, dBias] = spans as [
      Span,
      Span,
      Span,
      Span,
      Span,
      Span,
      Span,
      Span,
      Span,
      Span,
    ];
    kernels.layerNorm({ x, weight: w, bias: b, out, mean: m, rstd: r, rows, columns, eps: 1e-5 });
    kernels.layerNormBackward({
      x,
      weight: w,
      mean: m,
      rstd: r,
      gradient,
      dx,
      dWeight,
      dBias,
      rows,
      columns,
    });
  });
  expect(gap).toBeLessThan(4e-6);
});

test("rmsNorm, rotary and gated units equal their twins within rounding, at a width and at an odd one", () => {
  for (const columns of [1024, 1021]) {
    const rows = 200;
    const n = rows * columns;
    const [x, w, g, blank] = [normal(n, "x"), normal(columns, "w"), normal(n, "g"), new Float32Array(n)];
    const eps = 1e-5;
    const normed = difference([x, w, g, blank, new Float32Array(rows), blank, w], ({ kernels }, spans) => {
      const [a, weight, gradient, out, rstd, dx, dWeight] = spans as [
        ...[Span, Span, Span, Span, Span, Span, Span],
      ];
      kernels.rmsNorm({ x: a, weight, out, rstd, rows, columns, eps });
      kernels.rmsNormBackward({ x: a, weight, rstd, gradient, dx, dWeight, rows, columns });
    });
    expect(normed).toBeLessThan(4e-6);
    for (const op of ["silu", "geluTanh"] as const) {
      const gated = difference([x, g, blank, blank, blank], ({ kernels }, spans) => {
        const [gate, value, out, dGate, dX] = spans as [Span, Span, Span, Span, Span];
        kernels.gated(op, gate, value, out);
        kernels.gatedBackward({ op, gate, x: value, gradient: gate, dGate, dX });
      });
      expect(gated, op).toBeLessThan(4e-6);
    }
  }
  for (const headDim of [64, 10]) {
    const [length, heads] = [50, 3];
    const [cos, sin] = [Math.cos, Math.sin].map((of) =>
      Float32Array.from({ length: (length * headDim) / 2 }, (_, i) => of(i)),
    ) as [Float32Array, Float32Array];
    const shape = { rows: 2 * length, length, heads, headDim };
    const turned = difference(
      [normal(2 * length * heads * headDim, "heads"), cos, sin],
      ({ kernels }, [x, c, s]) =>
        kernels.rotary({ x: x!, out: x!, cos: c!, sin: s!, ...shape, inverse: true }),
    );
    expect(turned).toBeLessThan(1e-6);
  }
});

test("sums over a million elements stay within 1e-6 of the twin", () => {
  const x = normal(1_000_003, "sum").map((v) => v + 3);
  const out = new Float32Array(1);
  expect(difference([x, out], ({ kernels }, [a, b]) => kernels.normPower(a!, b!, 2))).toBeLessThan(1e-7);
  expect(
    difference([x, out], ({ kernels }, [a, b]) => kernels.reduce("sum", a!, b!, 1, a!.length, 1)),
  ).toBeLessThan(1e-7);
});

test("dropout drops the very same elements as the twin", () => {
  const x = normal(100_003, "dropout");
  for (const p of [0, 0.1, 0.5, 1 - 2 ** -33, 1]) {
    const key = streamKey(5, p);
    const gap = difference([x], ({ kernels }, [a]) => kernels.dropout(a!, a!, p, key));
    expect(gap, `p ${p}`).toBeLessThan(1e-6);
  }
});

test("a hundred adamw steps stay within rounding of the twin", () => {
  const inputs = [normal(1003, "p"), normal(1003, "g"), new Float32Array(1003), new Float32Array(1003)];
  const gap = difference(inputs, ({ kernels }, spans) => {
    const [parameter, gradient, expAvg, expAvgSq] = spans as [Span, Span, Span, Span];
    for (let step = 1; step <= 100; step++) {
      const hyper = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, step };
      kernels.adamw({ parameter, gradient, expAvg, expAvgSq, ...hyper });
    }
  });
  expect(gap).toBeLessThan(1e-5);
});

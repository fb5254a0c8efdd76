import { describe, expect, setDefaultTimeout } from "bun:test";
import type { WebgpuBackend } from "../../../backends/webgpu/backend.ts";
import { fold } from "../../../backends/webgpu/dispatch.ts";
import { newHostArray } from "../../../core/contracts/dtype.ts";
import { ConfigError, ShapeError } from "../../../core/contracts/errors.ts";
import { numbers, span, testGpu } from "./gpu.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(60_000);

describe("kernels", () => {
  testGpu("operands and result may lie in one buffer, of different width too", {}, async (backend) => {
    const x = span(backend, "float32", 24);
    backend.write(
      x,
      Float32Array.from({ length: 24 }, (_, i) => i),
    );
    const box = { sizes: [8], sourceOffset: 0, sourceStrides: [1], targetOffset: 16, targetStrides: [1] };
    backend.kernels.copy(x, x, [box]);
    backend.kernels.affine({ ...x, length: 3 }, { ...x, offset: 5, length: 3 }, 10, 0);
    // The condition is bound as words, the rest as floats.
    const whole = (offset: number) => ({ span: { ...x, offset, length: 4 }, strides: [1] });
    backend.kernels.where(whole(0), whole(16), whole(8), { ...x, offset: 20, length: 4 }, [4]);
    expect(await numbers(backend, x)).toEqual([
      0, 1, 2, 3, 4, 0, 10, 20, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 8, 1, 2, 3,
    ]);
  });

  testGpu("any number of boxes of any rank is copied", {}, async (backend) => {
    const boxes = Array.from({ length: 150 }, (_, i) => ({
      sizes: [2, 2, 1, 2, 2, 2].slice(i % 6),
      sourceOffset: 64 * i,
      sourceStrides: [32, 16, 8, 8, 4, 1].slice(i % 6),
      targetOffset: 64 * i,
      targetStrides: [1, 2, 3, 4, 8, 16].slice(i % 6),
    }));
    for (const dtype of ["float32", "float64", "uint8"] as const) {
      const [x, y] = [span(backend, dtype, 64 * 150), span(backend, dtype, 64 * 150)];
      const host = newHostArray(dtype, x.length);
      for (let i = 0; i < host.length; i++) host[i] = i % 251;
      backend.write(x, host);
      backend.kernels.fill(y, 255);
      backend.kernels.copy(x, y, boxes);
      const want = Array<number>(y.length).fill(255);
      for (const { sizes, sourceOffset, sourceStrides, targetStrides } of boxes) {
        const total = sizes.reduce((a, b) => a * b, 1);
        for (let n = 0; n < total; n++) {
          let [rest, from, to] = [n, sourceOffset, sourceOffset];
          for (let d = sizes.length - 1; d >= 0; d--) {
            from += (rest % sizes[d]!) * sourceStrides[d]!;
            to += (rest % sizes[d]!) * targetStrides[d]!;
            rest = Math.floor(rest / sizes[d]!);
          }
          want[to] = Number(host[from]);
        }
      }
      expect(await numbers(backend, y)).toEqual(want);
    }
  });

  testGpu("conversions to and from 64-bit integers are exact, and round to even", {}, async (backend) => {
    const integers = [
      0n,
      -1n,
      2n ** 24n + 1n,
      -(2n ** 24n) - 3n,
      2n ** 53n + 12345n,
      -(2n ** 62n) - 1n,
      2n ** 63n - 1n,
      -(2n ** 63n),
      0xffffff80n,
      0x1_0000_0001n,
    ];
    const [x, y] = [span(backend, "int64", integers.length), span(backend, "float32", integers.length)];
    backend.write(x, new BigInt64Array(integers));
    backend.kernels.cast(x, y);
    expect(await numbers(backend, y)).toEqual(integers.map((value) => Math.fround(Number(value))));
    const floats = [
      0.9,
      -0.9,
      2 ** 40 + 2 ** 20,
      -(2 ** 62),
      Number.NaN,
      Number.POSITIVE_INFINITY,
      8_388_609,
      -123_456_792,
      1e-40,
      2 ** 31,
    ];
    backend.write(y, new Float32Array(floats));
    backend.kernels.cast(y, x);
    const wanted = floats.map((value) =>
      Number.isFinite(value) ? BigInt(Math.trunc(Math.fround(value))) : 0n,
    );
    expect([...(await backend.read(x))]).toEqual(wanted);
  });

  testGpu(
    "every float16 survives a trip through float32, and halfway cases round to even",
    {},
    async (backend) => {
      const bits = Uint16Array.from({ length: 65_536 }, (_, i) => i);
      const [half, wide] = [span(backend, "float16", 65_536), span(backend, "float32", 65_536)];
      const values = new Float16Array(bits.buffer);
      backend.write(half, values);
      backend.kernels.cast(half, wide);
      expect(await numbers(backend, wide)).toEqual(Array.from(values, Number));
      const between = Float32Array.from(values, (value, i) => {
        const next = values[(i + 1) % 65_536]!;
        return Number.isFinite(value + next) ? (value + next) / 2 : value;
      });
      backend.write(wide, between);
      backend.kernels.cast(wide, half);
      expect(await numbers(backend, half)).toEqual(Array.from(new Float16Array(between), Number));
    },
  );

  testGpu("an index or target outside gives NaN in its row only", {}, async (backend) => {
    const [table, index, out] = [
      span(backend, "float32", 6),
      span(backend, "int64", 3),
      span(backend, "float32", 6),
    ];
    backend.write(table, new Float32Array([1, 2, 3, 4, 5, 6]));
    backend.write(index, new BigInt64Array([2n, 3n, -1n]));
    backend.kernels.embedding(table, index, out, 3, 2);
    expect(await numbers(backend, out)).toEqual([5, 6, Number.NaN, Number.NaN, Number.NaN, Number.NaN]);
    const [losses, sums] = [span(backend, "float32", 3), span(backend, "float32", 3)];
    backend.kernels.crossEntropy(table, index, losses, sums, 3, 2);
    expect(await numbers(backend, losses)).toEqual([Number.NaN, Number.NaN, Number.NaN]);
    expect((await numbers(backend, sums)).every(Number.isFinite)).toBe(true);
    backend.kernels.embeddingBackward(out, index, table, 3, 2);
    expect(await numbers(backend, table)).toEqual([0, 0, 0, 0, 5, 6]);
  });

  testGpu(
    "more workgroups than a dimension holds are folded, and every element is reached",
    {},
    async (backend) => {
      const length = 65_535 * 256 + 1000;
      const x = span(backend, "uint8", length);
      const wide = span(backend, "float32", length);
      backend.kernels.fill(x, 3);
      backend.kernels.cast(x, wide);
      const total = span(backend, "float32", 1);
      backend.kernels.normPower(wide, total, 1);
      expect(await numbers(backend, total)).toEqual([Math.fround(3 * length)]);
      for (const groups of [0, 1, 65_535, 65_536, 70_000, 10_000_000]) {
        const [x, y, z] = fold(groups);
        expect(x * y * z).toBeGreaterThanOrEqual(groups);
        expect(x * y * z - groups).toBeLessThan(Math.max(1, y));
        expect(Math.max(x, y, z)).toBeLessThanOrEqual(65_535);
      }
    },
  );

  testGpu("the same work gives the same bits", {}, async (backend) => {
    const run = async (): Promise<string> => {
      const [x, index, out] = [
        span(backend, "float32", 64 * 40),
        span(backend, "int32", 64),
        span(backend, "float32", 200),
      ];
      backend.kernels.fill(x, 1);
      backend.kernels.dropout(x, x, 0.4, { high: 1, low: 2 });
      backend.kernels.unary("geluTanh", x, x);
      backend.write(
        index,
        Int32Array.from({ length: 64 }, (_, i) => (i * i) % 5),
      );
      backend.kernels.embeddingBackward(x, index, out, 64, 40);
      backend.kernels.reduce("sum", x, { ...out, length: 40 }, 1, 64, 40, true);
      return Buffer.from((await backend.read(out)).buffer).toString("hex");
    };
    expect(await run()).toBe(await run());
  });

  testGpu("operands that do not fit are refused by name", {}, async (backend) => {
    const [x, y, half] = [
      span(backend, "float32", 4),
      span(backend, "float32", 3),
      span(backend, "bfloat16", 4),
    ];
    expect(() => backend.kernels.unary("exp", x, y)).toThrow("operands differ: float32[4], float32[3]");
    expect(() => backend.kernels.unary("exp", half, half)).toThrow("bfloat16 is not computed in");
    expect(() => backend.kernels.softmax(x, x, 2, 3, false)).toThrow(
      "a span of 4 elements was given, 6 are needed",
    );
    expect(() =>
      backend.kernels.binary("add", { span: x, strides: [5] }, { span: y, strides: [1] }, x, [3]),
    ).toThrow(ShapeError);
    expect(() => backend.kernels.copy(x, half, [])).toThrow(ShapeError);
    expect(() => backend.kernels.cast(x, span(backend, "float64", 4))).toThrow("float64 is stored only");
    expect(() => backend.kernels.dropout(x, x, 1.5, { high: 0, low: 0 })).toThrow(ConfigError);
  });

  testGpu(
    "device time is counted by kernel family when asked",
    { profile: "on" },
    async (backend: WebgpuBackend) => {
      const x = span(backend, "float32", 1000);
      backend.kernels.fill(x, 1);
      for (let i = 0; i < 120; i++) backend.kernels.unary("exp", x, x);
      const times = await backend.kernelTimes();
      expect(times.map(({ family, dispatches }) => [family, dispatches]).toSorted()).toEqual([
        ["fill", 1],
        ["unary-exp", 120],
      ]);
      expect(times.every(({ milliseconds }) => milliseconds >= 0)).toBe(true);
      expect(await backend.kernelTimes()).toEqual([]);
    },
  );
});

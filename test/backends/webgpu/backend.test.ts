import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createWebgpuBackend, type WebgpuBackend } from "../../../backends/webgpu/backend.ts";
import { blockBytes } from "../../../backends/webgpu/buffers.ts";
import { fold } from "../../../backends/webgpu/dispatch.ts";
import { webgpuBackend, webgpuPlugin } from "../../../backends/webgpu/mod.ts";
import type { Backend, Span } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType, newHostArray } from "../../../core/contracts/dtype.ts";
import { ConfigError, DeviceError, ShapeError, StateError } from "../../../core/contracts/errors.ts";
import { BACKEND, type Registry } from "../../../core/contracts/plugin.ts";
import { testGpu } from "./gpu.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(60_000);

function span(backend: Backend, dtype: DType, length: number): Span {
  const buffer = backend.allocate(length * DTYPES[dtype].bytes, "activation");
  return { buffer, dtype, offset: 0, length };
}

async function numbers(backend: Backend, source: Span): Promise<number[]> {
  return Array.from((await backend.read(source)) as Float32Array, Number);
}

test("the plugin registers the backend as webgpu", () => {
  const seen: unknown[] = [];
  const registry: Partial<Registry> = { register: (kind, name, value) => seen.push(kind, name, value) };
  webgpuPlugin.setup(registry as Registry);
  expect(seen).toEqual([BACKEND, "webgpu", webgpuBackend]);
});

describe("transfers", () => {
  testGpu(
    "what is written to any part of a buffer of any dtype is read back, the rest stays",
    {},
    async (backend) => {
      for (const dtype of Object.keys(DTYPES) as DType[]) {
        for (let offset = 0; offset < 6; offset++) {
          for (const length of [0, 1, 2, 3, 5, 8]) {
            const whole = span(backend, dtype, 14);
            const before = newHostArray(dtype, 14);
            const host = newHostArray(dtype, length);
            for (let i = 0; i < 14; i++) before[i] = before instanceof BigInt64Array ? 7n : 7;
            for (let i = 0; i < length; i++) host[i] = host instanceof BigInt64Array ? BigInt(i) : i;
            backend.write(whole, before);
            const target = { ...whole, offset, length };
            backend.write(target, host);
            (before as Uint8Array).set(host as Uint8Array, offset);
            expect(await backend.read(target)).toEqual(host);
            expect(await backend.read(whole)).toEqual(before);
            backend.release(whole.buffer);
          }
        }
      }
    },
  );

  testGpu(
    "a source may be changed once write returned, and a read shows what was there when it was called",
    {},
    async (backend) => {
      const x = span(backend, "float32", 2);
      const host = new Float32Array([1, 2]);
      backend.write(x, host);
      host.fill(9);
      const early = backend.read(x);
      backend.kernels.fill(x, 5);
      const late = backend.read(x);
      expect([[...(await early)], [...(await late)]]).toEqual([
        [1, 2],
        [5, 5],
      ]);
    },
  );

  testGpu("reads go into shared memory in place", {}, async (backend) => {
    const x = span(backend, "float32", 1000);
    backend.kernels.fill(x, 3);
    const shared = new Float32Array(new SharedArrayBuffer(4 * 1002), 4, 1000);
    await backend.readInto(x, shared);
    expect(shared.every((value) => value === 3)).toBe(true);
    backend.write(x, shared.fill(4));
    expect(await numbers(backend, { ...x, length: 1 })).toEqual([4]);
    await expect(backend.readInto(x, new Float32Array(999))).rejects.toThrow(ShapeError);
    expect(() => backend.write(x, new Float64Array(1000))).toThrow("Float64Array of 1000 elements was given");
  });

  testGpu("transfers longer than a staging buffer arrive whole", {}, async (backend) => {
    const length = 17 * 2 ** 20 + 3;
    const x = span(backend, "float32", length + 1);
    const host = Float32Array.from({ length }, (_, i) => i % 1_000_003);
    const target = { ...x, offset: 1, length };
    backend.write(target, host);
    expect(Buffer.compare(Buffer.from(host.buffer), Buffer.from((await backend.read(target)).buffer))).toBe(
      0,
    );
  });
});

describe("memory", () => {
  testGpu(
    "it is counted by category at the size asked for, and freed memory is used again",
    {},
    async (backend) => {
      const a = backend.allocate(10, "parameter");
      const b = backend.allocate(0, "gradient");
      expect(backend.memory.report().currentTotal).toBe(10);
      backend.relabel(a, "gradient");
      expect([a.category, backend.memory.report().current.gradient]).toEqual(["gradient", 10]);
      backend.release(a);
      backend.release(b);
      expect(backend.memory.report().currentTotal).toBe(0);
      const reserved = backend.reservedBytes;
      for (let i = 0; i < 100; i++) backend.release(backend.allocate(10, "activation"));
      expect(backend.reservedBytes).toBe(reserved);
    },
  );

  testGpu("equal steps peak at the same byte, and a thousand do not grow", {}, async (backend) => {
    const step = async (): Promise<number> => {
      backend.memory.resetPeak();
      const spans = [100, 7000, 333, 100].map((length) => span(backend, "float32", length));
      for (const x of spans) backend.kernels.fill(x, 1);
      backend.kernels.normPower(spans[1]!, { ...spans[0]!, length: 1 }, 2);
      for (const { buffer } of spans) backend.release(buffer);
      return backend.memory.report().peakTotal;
    };
    const peak = await step();
    await backend.flush();
    const reserved = backend.reservedBytes;
    for (let i = 0; i < 1000; i++) {
      expect(await step()).toBe(peak);
      if (i % 100 === 0) await backend.flush();
    }
    expect(backend.reservedBytes).toBe(reserved);
  });

  testGpu("memory that nobody asks for again goes back to the device", {}, async (backend) => {
    backend.release(backend.allocate(5_000_000, "activation"));
    const reserved = backend.reservedBytes;
    for (let i = 0; i < 25_000; i++) backend.release(backend.allocate(16, "activation"));
    expect(backend.reservedBytes).toBeLessThan(reserved - 4_999_999);
    const x = span(backend, "float32", 4);
    backend.kernels.fill(x, 2);
    expect(await numbers(backend, x)).toEqual([2, 2, 2, 2]);
  });

  testGpu(
    "over the memory limit, unused memory goes first; then allocating fails by name",
    { "memory-limit": "3000000" },
    async (backend) => {
      backend.release(backend.allocate(2_000_000, "activation"));
      const kept = backend.allocate(2_500_000, "parameter");
      const allocate = (): unknown => backend.allocate(1_000_000, "activation");
      expect(allocate).toThrow(DeviceError);
      expect(allocate).toThrow("1000000 activation bytes do not fit");
      backend.release(kept);
      expect(backend.allocate(2_700_000, "activation").byteLength).toBe(2_700_000);
      expect(() => backend.allocate(2 ** 60, "activation")).toThrow("allowed: 0 to");
      expect(() => backend.allocate(Number.NaN, "activation")).toThrow(DeviceError);
    },
  );

  testGpu(
    "releasing twice, use after release, foreign buffers and spans beyond are refused",
    {},
    async (backend) => {
      const other = await createWebgpuBackend({});
      const x = span(backend, "float32", 4);
      expect(() => other.kernels.fill(x, 1)).toThrow(StateError);
      for (const bad of [
        { length: 5 },
        { offset: 1 },
        { offset: -1 },
        { offset: Number.NaN },
        { offset: 0.5, length: 1 },
      ]) {
        expect(() => backend.kernels.fill({ ...x, ...bad }, 1)).toThrow(ShapeError);
      }
      backend.release(x.buffer);
      expect(() => backend.release(x.buffer)).toThrow(StateError);
      expect(() => backend.kernels.fill(x, 1)).toThrow("used after release");
      await other.dispose();
      await other.dispose();
      expect(() => other.allocate(4, "activation")).toThrow(StateError);
    },
  );

  test("blocks waste at most an eighth", () => {
    for (const bytes of [0, 1, 256, 257, 1000, 4097, 70_000, 2 ** 20, 2 ** 20 + 1, 2 ** 33 + 5]) {
      const block = blockBytes(bytes);
      expect(block).toBeGreaterThanOrEqual(bytes);
      expect(block % 256).toBe(0);
      expect(block).toBeLessThanOrEqual(Math.max(bytes * 1.125, bytes + 256));
    }
  });
});

describe("failures", () => {
  testGpu("a lost device fails what waits, and every later call", { checks: "off" }, async (backend) => {
    const x = span(backend, "float32", 4);
    backend.kernels.fill(x, 1);
    const reading = backend.read(x);
    backend.device.destroy();
    await expect(reading).rejects.toThrow(DeviceError);
    await expect(backend.flush()).rejects.toThrow("the device is lost");
    expect(() => backend.kernels.fill(x, 1)).toThrow(DeviceError);
    expect(() => backend.allocate(4, "activation")).toThrow(DeviceError);
    await expect(backend.read(x)).rejects.toThrow(DeviceError);
  });

  testGpu("an error that the device reports later fails the next wait", {}, async (backend) => {
    backend.device.createBuffer({ size: 4, usage: 0xffff });
    await expect(backend.flush()).rejects.toThrow("the device reported an error");
    await expect(backend.flush()).rejects.toThrow(DeviceError);
  });
});

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
    for (const dtype of ["float32", "uint8"] as const) {
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

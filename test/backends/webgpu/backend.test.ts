import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createWebgpuBackend } from "../../../backends/webgpu/backend.ts";
import { blockBytes } from "../../../backends/webgpu/buffers.ts";
import { webgpuBackend, webgpuPlugin } from "../../../backends/webgpu/mod.ts";
import { DTYPES, type DType, newHostArray } from "../../../core/contracts/dtype.ts";
import { DeviceError, ShapeError, StateError } from "../../../core/contracts/errors.ts";
import { BACKEND, type Registry } from "../../../core/contracts/plugin.ts";
import { numbers, span, testGpu } from "./gpu.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(60_000);

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

describe("writes that do not hold the thread up", () => {
  testGpu("they give what writes give, whatever their length and place", {}, async (backend) => {
    for (const length of [0, 1, 5, 2 ** 18 + 1, 17 * 2 ** 20 + 3]) {
      const x = span(backend, "float32", length + 2);
      const bytes = new Float32Array(new SharedArrayBuffer(4 * length));
      for (let i = 0; i < length; i++) bytes[i] = i % 1_000_003;
      for (const offset of [0, 1]) {
        const target = { ...x, offset, length };
        backend.kernels.fill(x, -1);
        await backend.writeFrom(target, bytes);
        const got = await backend.read(target);
        expect(Buffer.compare(Buffer.from(bytes.buffer), Buffer.from(got.buffer))).toBe(0);
        expect(await numbers(backend, { ...x, offset: length + 1, length: 1 })).toEqual([-1]);
      }
      backend.release(x.buffer);
    }
  });

  testGpu("float16 at an odd place", {}, async (backend) => {
    const x = span(backend, "float16", 7);
    backend.kernels.fill({ ...x }, 0);
    const halves = newHostArray("float16", 3);
    (halves as Uint16Array).set([1, 2, 3]);
    await backend.writeFrom({ ...x, offset: 1, length: 3 }, halves);
    expect([...(await backend.read(x))]).toEqual([0, 1, 2, 3, 0, 0, 0]);
  });

  testGpu("many at a time arrive, and are seen by work that follows", {}, async (backend) => {
    const spans = Array.from({ length: 12 }, () => span(backend, "float32", 2 ** 18));
    const writes = spans.map((x, i) => backend.writeFrom(x, new Float32Array(x.length).fill(i)));
    await Promise.all(writes);
    const total = span(backend, "float32", 2 ** 18);
    backend.kernels.fill(total, 0);
    for (const x of spans) {
      const [left, right] = [total, x].map((part) => ({ span: part, strides: [1] })) as [never, never];
      backend.kernels.binary("add", left, right, total, [total.length]);
    }
    expect(new Set((await backend.read(total)) as Float32Array)).toEqual(new Set([66]));
  });

  testGpu("a target of another form is refused", {}, async (backend) => {
    const x = span(backend, "float32", 4);
    await expect(backend.writeFrom(x, new Float32Array(3))).rejects.toThrow(ShapeError);
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

import { describe, expect, test } from "bun:test";
import { cpuBackend, cpuPlugin } from "../../../backends/cpu/mod.ts";
import type { Backend, Span } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType, newHostArray } from "../../../core/contracts/dtype.ts";
import { ConfigError, DeviceError, ShapeError, StateError } from "../../../core/contracts/errors.ts";
import { BACKEND, type Registry } from "../../../core/contracts/plugin.ts";

const PLAIN = { matmul: "plain", kernels: "plain" };

function span(backend: Backend, dtype: DType, length: number): Span {
  const buffer = backend.allocate(length * DTYPES[dtype].bytes, "activation");
  return { buffer, dtype, offset: 0, length };
}

test("the plugin registers the backend as cpu", () => {
  const seen: unknown[] = [];
  const registry: Partial<Registry> = { register: (kind, name, value) => seen.push(kind, name, value) };
  cpuPlugin.setup(registry as Registry);
  expect(seen).toEqual([BACKEND, "cpu", cpuBackend]);
});

describe("memory", () => {
  test("what is written to a span of any dtype is read back, and the live view shows it", async () => {
    const backend = await cpuBackend.create({ settings: PLAIN });
    for (const dtype of Object.keys(DTYPES) as DType[]) {
      const target = span(backend, dtype, 5);
      const host = newHostArray(dtype, 5);
      for (let i = 0; i < 5; i++) host[i] = host instanceof BigInt64Array ? BigInt(i) : i;
      backend.write(target, host);
      expect(await backend.read(target)).toEqual(host);
      expect(backend.hostView(target)).toEqual(host);
    }
  });

  test("a read is a copy", async () => {
    const backend = await cpuBackend.create({ settings: PLAIN });
    const target = span(backend, "float32", 2);
    backend.kernels.fill(target, 1);
    const copy = await backend.read(target);
    backend.kernels.fill(target, 2);
    expect([...copy]).toEqual([1, 1]);
  });

  test("a span of any dtype is read into an array of its kind, and into no other", async () => {
    const backend = await cpuBackend.create({ settings: PLAIN });
    for (const dtype of Object.keys(DTYPES) as DType[]) {
      const source = span(backend, dtype, 5);
      backend.kernels.fill(source, 1);
      const target = newHostArray(dtype, 5);
      await backend.readInto(source, target);
      expect(target).toEqual(await backend.read(source));
      await expect(backend.readInto(source, newHostArray(dtype, 4))).rejects.toBeInstanceOf(ShapeError);
      const other = newHostArray(dtype === "float64" ? "float32" : "float64", 5);
      await expect(backend.readInto(source, other)).rejects.toBeInstanceOf(ShapeError);
    }
  });

  test("views stay live and kernels stay right when memory grows", async () => {
    const backend = await cpuBackend.create({});
    const early = span(backend, "float32", 1000);
    const view = backend.hostView(early)!;
    const late = span(backend, "float32", 30_000_000);
    backend.kernels.fill(late, 3);
    backend.kernels.fill(early, 2);
    expect(view[999]).toBe(2);
    const tail: Span = { ...late, offset: late.length - 1000, length: 1000 };
    backend.kernels.affine(early, tail, 2, 1);
    expect(backend.hostView(tail)![0]).toBe(5);
  });

  test("memory is counted by category at the size asked for, and freed memory is used again", async () => {
    const backend = await cpuBackend.create({ settings: PLAIN });
    const a = backend.allocate(10, "parameter");
    const b = backend.allocate(0, "gradient");
    expect(backend.memory.report().currentTotal).toBe(10);
    backend.relabel(a, "gradient");
    expect(a.category).toBe("gradient");
    expect(backend.memory.report().current.gradient).toBe(10);
    backend.release(a);
    backend.release(b);
    expect(backend.memory.report().currentTotal).toBe(0);
    for (let i = 0; i < 100; i++) backend.release(backend.allocate(200_000_000, "activation"));
    expect(backend.memory.report().peakTotal).toBe(200_000_000);
  });

  test("releasing twice, use after release and a foreign buffer are refused", async () => {
    const backend = await cpuBackend.create({ settings: PLAIN });
    const other = await cpuBackend.create({ settings: PLAIN });
    const x = span(backend, "float32", 4);
    expect(() => other.kernels.fill(x, 1)).toThrow(StateError);
    backend.release(x.buffer);
    expect(() => backend.release(x.buffer)).toThrow(StateError);
    expect(() => backend.kernels.fill(x, 1)).toThrow(StateError);
    expect(() => backend.hostView(x)).toThrow("used after release");
  });

  test("a span beyond its buffer is refused", async () => {
    const backend = await cpuBackend.create({ settings: PLAIN });
    const x = span(backend, "float32", 4);
    for (const bad of [
      { ...x, length: 5 },
      { ...x, offset: 1 },
      { ...x, offset: -1 },
      { ...x, offset: Number.NaN },
    ]) {
      expect(() => backend.kernels.fill(bad, 1)).toThrow(ShapeError);
    }
    expect(() => backend.write(x, new Float32Array(5))).toThrow(ShapeError);
    expect(() => backend.write(x, new Float64Array(4))).toThrow(ShapeError);
  });

  test("tensors live in the host memory that is given, and running out says how much", async () => {
    const hostMemory = new WebAssembly.Memory({ initial: 1, maximum: 64, shared: true });
    const backend = await cpuBackend.create({ hostMemory, settings: PLAIN });
    const x = span(backend, "float32", 8);
    expect(backend.hostView(x)!.buffer).toBe(hostMemory.buffer);
    expect(() => backend.allocate(4_000_000, "activation")).toThrow(DeviceError);
    expect(() => backend.allocate(4_000_000, "activation")).toThrow(
      "4000000 bytes do not fit beside the 32 in use",
    );
    expect(backend.memory.report().currentTotal).toBe(32);
    expect(backend.allocate(3_000_000, "activation").byteLength).toBe(3_000_000);
    expect(() => backend.allocate(5e9, "activation")).toThrow(DeviceError);
  });

  test("two backends cannot live in one memory at a time", async () => {
    const hostMemory = new WebAssembly.Memory({ initial: 1, maximum: 64, shared: true });
    const first = await cpuBackend.create({ hostMemory, settings: PLAIN });
    await expect(cpuBackend.create({ hostMemory, settings: PLAIN })).rejects.toThrow(StateError);
    await first.dispose();
    expect(() => first.allocate(1, "activation")).toThrow(StateError);
    await (await cpuBackend.create({ hostMemory, settings: PLAIN })).dispose();
  });

  test("memory that is not shared is refused", async () => {
    const hostMemory = new WebAssembly.Memory({ initial: 1, maximum: 64 });
    await expect(cpuBackend.create({ hostMemory })).rejects.toThrow(DeviceError);
  });
});

describe("settings", () => {
  test("unknown settings and values list what is allowed", async () => {
    const create = (settings: Record<string, string>): Promise<Backend> => cpuBackend.create({ settings });
    await expect(create({ matmul: "cuda" })).rejects.toThrow(
      new ConfigError('cpu setting matmul: "cuda" was given, allowed: auto, blas, wasm, plain'),
    );
    await expect(create({ kernels: "" })).rejects.toThrow("allowed: fast, plain");
    await expect(create({ threads: "4" })).rejects.toThrow(
      "cpu setting threads: unknown, allowed: matmul, kernels",
    );
    await expect(create({ toString: "x" })).rejects.toThrow(ConfigError);
  });

  test("the description and the probe name the engine that is used", async () => {
    const backend = await cpuBackend.create({ settings: { matmul: "wasm" } });
    expect(backend.description).toContain("matmul: WebAssembly");
    const lines = await cpuBackend.probe();
    expect(lines.map(({ what }) => what)).toEqual(["cpu cores", "cpu matmul", "cpu kernels"]);
    const auto = await cpuBackend.create({});
    expect(auto.description).toContain(lines[1]!.found);
  });
});

describe("operands", () => {
  test("indices and targets outside the table are refused by value and position", async () => {
    for (const kernels of ["plain", "fast"]) {
      const backend = await cpuBackend.create({ settings: { kernels } });
      const table = span(backend, "float32", 6);
      const index = span(backend, "int64", 2);
      const out = span(backend, "float32", 4);
      backend.write(index, new BigInt64Array([1n, 3n]));
      expect(() => backend.kernels.embedding(table, index, out, 2, 2)).toThrow(
        new ShapeError("cpu embedding: index 3 at position 1 is outside the table of 3 rows"),
      );
      const loss = span(backend, "float32", 2);
      expect(() => backend.kernels.crossEntropy(table, index, loss, loss, 2, 3)).toThrow("target 3 of row 1");
    }
  });

  test("matrices that reach beyond their spans never get to the engine", async () => {
    for (const matmul of ["plain", "wasm", "blas"]) {
      const backend = await cpuBackend.create({ settings: { matmul } });
      const x = span(backend, "float32", 15);
      const operand = { span: x, rowStride: 4, batchStride: 0, transposed: false };
      const extents = { batch: 1, m: 4, n: 4, k: 4 };
      expect(() => backend.kernels.matmul({ a: operand, b: operand, out: operand, ...extents })).toThrow(
        ShapeError,
      );
    }
  });

  test("dtypes that kernels do not compute in are refused by name", async () => {
    const backend = await cpuBackend.create({});
    const x = span(backend, "int32", 4);
    expect(() => backend.kernels.unary("exp", x, x)).toThrow(
      "int32 is not computed in, allowed: float32, float64, float16, bfloat16",
    );
  });
});

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ShapeError, StateError } from "../../../core/contracts/errors.ts";
import type { Device } from "../../../core/tensor/device.ts";
import { Storage } from "../../../core/tensor/storage.ts";
import { testDevice, valuesOf } from "./gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

describe("making tensors", () => {
  test("nested arrays give the shape; ragged ones are refused", async () => {
    using x = device.tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(x.shape).toEqual([2, 3]);
    expect(x.dtype).toBe("float32");
    expect(await valuesOf(x)).toEqual([1, 2, 3, 4, 5, 6]);
    using scalar = device.tensor(7);
    expect(scalar.shape).toEqual([]);
    expect(await scalar.item()).toBe(7);
    using empty = device.tensor([[], []]);
    expect(empty.shape).toEqual([2, 0]);
    for (const ragged of [
      [[1], [2, 3]],
      [1, [2]],
      [[1], 2],
    ]) {
      expect(() => device.tensor(ragged)).toThrow("nested arrays are ragged");
    }
  });

  test("host arrays keep their dtype and must fill the shape", async () => {
    for (const [array, dtype] of [
      [Float64Array.of(1.5), "float64"],
      [Int32Array.of(-1), "int32"],
      [BigInt64Array.of(5n), "int64"],
      [Uint8Array.of(3), "uint8"],
      [Float16Array.of(0.5), "float16"],
    ] as const) {
      using x = device.tensor(array);
      expect(x.dtype).toBe(dtype);
      expect(await valuesOf(x)).toEqual(Array.from(array, Number));
    }
    using long = device.tensor(Int32Array.of(1, 2), { dtype: "int64", shape: [2, 1] });
    expect(await long.data()).toEqual(BigInt64Array.of(1n, 2n));
    expect(() => device.tensor(Float32Array.of(1, 2), { shape: [3] })).toThrow(ShapeError);
    expect(() => device.tensor(new Uint16Array(2))).toThrow("give a dtype");
  });

  test("numbers become bfloat16 by value; raw 16-bit words stay as they are", async () => {
    using byValue = device.tensor([1, -2, 0.5], { dtype: "bfloat16" });
    expect(await byValue.data()).toEqual(Uint16Array.of(0x3f80, 0xc000, 0x3f00));
    using raw = device.tensor(Uint16Array.of(0x3f80), { dtype: "bfloat16" });
    expect(await raw.data()).toEqual(Uint16Array.of(0x3f80));
    using count = device.arange(3, { dtype: "bfloat16" });
    expect(await count.data()).toEqual(Uint16Array.of(0, 0x3f80, 0x4000));
  });

  test("random tensors repeat with the seed and differ between calls", async () => {
    const [one, two, other] = [await testDevice(5), await testDevice(5), await testDevice(6)];
    const draw = async (d: Device) => [await valuesOf(d.randn([9])), await valuesOf(d.rand([9]))];
    const first = await draw(one);
    expect(await draw(two)).toEqual(first);
    expect(await draw(other)).not.toEqual(first);
    expect(await draw(one)).not.toEqual(first);
    one.streamPosition = 0;
    expect(await draw(one)).toEqual(first);
    for (const value of first[1]!) expect(value >= 0 && value < 1).toBe(true);
    expect(() => one.randn([2], { dtype: "int32" })).toThrow(ShapeError);
    for (const d of [one, two, other]) await d.backend.dispose();
  });

  test("bad extents and gradients of integers are refused", () => {
    expect(() => device.zeros([2, -1])).toThrow(ShapeError);
    expect(() => device.ones([1], { dtype: "int32", requiresGrad: true })).toThrow(
      'dtype "int32" cannot require a gradient',
    );
  });

  test("item refuses more than one element", async () => {
    using x = device.zeros([2]);
    await expect(x.item()).rejects.toThrow(ShapeError);
  });
});

describe("storage", () => {
  test("is freed by its last holder, and refuses to be let go more often than held", () => {
    const before = device.backend.memory.report().currentTotal;
    const storage = new Storage(device.backend, device.backend.allocate(64, "activation"));
    storage.retain();
    expect(storage.exclusive).toBe(false);
    storage.release();
    expect(storage.exclusive).toBe(true);
    expect(device.backend.memory.report().currentTotal).toBe(before + 64);
    storage.release();
    expect(device.backend.memory.report().currentTotal).toBe(before);
    expect(() => storage.release()).toThrow(StateError);
    expect(() => storage.retain()).toThrow(StateError);
  });
});

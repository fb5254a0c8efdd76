import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { numelOf } from "../../../../core/tensor/shape.ts";
import { gradcheck, shapes, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

describe("embedding", () => {
  test("picks rows by int32 or int64 indices of any shape; equal indices add their gradients", async () => {
    const cases = fc.record({
      shape: shapes,
      columns: fc.integer({ min: 0, max: 3 }),
      rows: fc.integer({ min: 1, max: 4 }),
      dtype: fc.constantFrom("int32" as const, "int64" as const),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ shape, columns, rows, dtype }) => {
        const picked = Array.from({ length: numelOf(shape) }, (_, i) => (i * i + 1) % rows);
        using indices = device.tensor(Int32Array.from(picked), { shape, dtype });
        await gradcheck(device, (table) => ops.embedding(table, indices), [{ shape: [rows, columns] }]);
        using table = device.randn([rows, columns], { dtype: "float64" });
        using out = ops.embedding(table, indices);
        expect(out.shape).toEqual([...shape, columns]);
        const given = await valuesOf(table);
        expect(await valuesOf(out)).toEqual(
          picked.flatMap((row) => given.slice(row * columns, (row + 1) * columns)),
        );
      }),
      { numRuns: 15 },
    );
  });

  test("an index outside the table, float indices and a table of other rank are refused", () => {
    using table = device.zeros([3, 2]);
    for (const index of [3, -1]) {
      using indices = device.tensor(Int32Array.of(index));
      expect(() => ops.embedding(table, indices)).toThrow(ShapeError);
    }
    expect(() => ops.embedding(table, device.tensor([0]))).toThrow("float32 indices");
    expect(() => ops.embedding(device.zeros([3]), device.tensor(Int32Array.of(0)))).toThrow(ShapeError);
  });
});

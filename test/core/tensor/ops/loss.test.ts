import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { numelOf } from "../../../../core/tensor/shape.ts";
import { bytesOn, clearOfZero, gradcheck, leaf, shapes, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

const IGNORED = -100;

describe("crossEntropy", () => {
  const cases = fc.record({
    shape: shapes,
    classes: fc.integer({ min: 1, max: 4 }),
    reduction: fc.constantFrom("mean" as const, "sum" as const, "none" as const),
    dtype: fc.constantFrom("int32" as const, "int64" as const),
    everySecondIgnored: fc.boolean(),
  });

  test("equals minus the log-softmax at the target; ignored rows count for nothing", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ shape, classes, reduction, dtype, everySecondIgnored }) => {
        const wanted = Array.from({ length: numelOf(shape) }, (_, i) =>
          everySecondIgnored && i % 2 === 1 ? IGNORED : (i * 3 + 1) % classes,
        );
        const full = [...shape, classes];
        using targets = device.tensor(Int32Array.from(wanted), { shape, dtype });
        using logits = device.randn(full, { dtype: "float64" });
        using log = ops.logSoftmax(logits);
        const table = await valuesOf(log);
        const losses = wanted.map((target, row) =>
          target === IGNORED ? 0 : -table[row * classes + target]!,
        );
        const sum = losses.reduce((a, b) => a + b, 0);
        const count = wanted.filter((target) => target !== IGNORED).length;
        const expected = { none: losses, sum: [sum], mean: [sum / count] }[reduction];

        using loss = ops.crossEntropy(logits, targets, { reduction });
        expect(loss.shape).toEqual(reduction === "none" ? shape : []);
        for (const [i, found] of (await valuesOf(loss)).entries()) {
          if (Number.isNaN(expected[i])) expect(found).toBeNaN();
          else expect(found).toBeCloseTo(expected[i]!, 12);
        }
        if (reduction === "mean" && count === 0) return;
        await gradcheck(device, (x) => ops.crossEntropy(x, targets, { reduction }), [{ shape: full }]);
      }),
      { numRuns: 25 },
    );
  });

  test("the mean over nothing is NaN, as in PyTorch", async () => {
    using logits = device.zeros([2, 3]);
    using targets = device.tensor(Int32Array.of(IGNORED, IGNORED));
    using loss = ops.crossEntropy(logits, targets);
    expect(await loss.item()).toBeNaN();
  });

  test("the gradient takes the place of logits that nobody holds, and of no others", async () => {
    const rows = 8;
    const classes = 64;
    const bytes = rows * classes * 8;
    using x = leaf(
      device,
      [rows, classes],
      Array.from({ length: rows * classes }, (_, i) => clearOfZero(i)),
    );
    using targets = device.tensor(Int32Array.from({ length: rows }, (_, i) => i));
    /** Highest bytes of a backward pass above what was in use when it began, and its gradient. */
    const pass = async (held: boolean, retainGraph: boolean) => {
      const result = await device.scope(async () => {
        const logits = ops.mul(x, 2);
        const before = await valuesOf(logits);
        const loss = ops.crossEntropy(logits, targets);
        if (held) logits.keep();
        else logits.dispose();
        const { memory } = device.backend;
        memory.resetPeak();
        const start = memory.report().currentTotal;
        await loss.backward({ retainGraph });
        const rise = memory.report().peakTotal - start;
        if (held) {
          expect(await valuesOf(logits)).toEqual(before);
          logits.dispose();
        }
        if (retainGraph) await loss.backward();
        return { rise, grad: await valuesOf(x.grad!) };
      });
      x.grad!.dispose();
      x.grad = undefined;
      return result;
    };
    const free = await pass(false, false);
    const held = await pass(true, false);
    const twice = await pass(false, true);
    expect(free.rise).toBeLessThan(bytes);
    expect(held.rise).toBeGreaterThanOrEqual(bytes);
    expect(held.grad).toEqual(free.grad);
    expect(twice.grad).toEqual(free.grad.map((g) => g + g));
  });

  test("targets that are no classes, no integers or of another shape are refused", async () => {
    using logits = device.zeros([2, 3]);
    using outside = device.tensor(Int32Array.of(0, 3));
    const before = bytesOn(device);
    const failing = device.scope(() => void ops.crossEntropy(logits, outside));
    await expect(failing).rejects.toThrow(ShapeError);
    expect(bytesOn(device)).toBe(before);
    expect(() => ops.crossEntropy(logits, device.tensor([0, 1]))).toThrow("float32 targets [2]");
    expect(() => ops.crossEntropy(logits, device.tensor(Int32Array.of(0)))).toThrow(ShapeError);
  });
});

describe("mseLoss", () => {
  test("is the squared difference, averaged, summed or apart", async () => {
    for (const reduction of ["mean", "sum", "none"] as const) {
      await gradcheck(device, (a, b) => ops.mseLoss(a, b, { reduction }), [
        { shape: [2, 3] },
        { shape: [2, 3] },
      ]);
    }
    using a = device.tensor([1, 2]);
    using b = device.tensor([4, 0]);
    for (const [reduction, expected] of [
      ["none", [9, 4]],
      ["sum", [13]],
      ["mean", [6.5]],
    ] as const) {
      using loss = ops.mseLoss(a, b, { reduction });
      expect(await valuesOf(loss)).toEqual([...expected]);
    }
    expect(() => ops.mseLoss(a, device.zeros([1]))).toThrow("input [2] and target [1]");
  });
});

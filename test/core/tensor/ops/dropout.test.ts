import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { randomWords, streamKey } from "../../../../core/tensor/random.ts";
import { gradcheck, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

describe("dropout", () => {
  test("keeps what its stream says, scaled, and sends the gradient the same way", async () => {
    const position = device.streamPosition;
    using x = device.ones([1001]);
    using y = ops.dropout(x, 0.25);
    const words = new Uint32Array(1001);
    randomWords(streamKey(device.seed, "dropout", device.rank, position), 0, words);
    const expected = Array.from(words, (word) => (word / 2 ** 32 >= 0.25 ? Math.fround(1 / 0.75) : 0));
    expect(await valuesOf(y)).toEqual(expected);
    const kept = expected.filter((value) => value > 0).length;
    // Five standard deviations around the mean.
    expect(Math.abs(kept - 750.75)).toBeLessThan(5 * Math.sqrt(1001 * 0.25 * 0.75));
    await gradcheck(device, (t) => ops.dropout(t, 0.4), [{ shape: [4, 3] }]);
  });

  test("every call draws anew; the same seed and position draw the same", async () => {
    using x = device.ones([64]);
    using first = ops.dropout(x, 0.5);
    using second = ops.dropout(x, 0.5);
    expect(await valuesOf(first)).not.toEqual(await valuesOf(second));
    device.streamPosition -= 2;
    using again = ops.dropout(x, 0.5);
    expect(await valuesOf(again)).toEqual(await valuesOf(first));
  });

  test("p = 1 drops all; p = 0 and evaluation are the identity on a handle of its own and draw nothing", async () => {
    using x = device.tensor([1, 2], { requiresGrad: true });
    using none = ops.dropout(x, 1);
    expect(await valuesOf(none)).toEqual([0, 0]);
    const position = device.streamPosition;
    for (const y of [ops.dropout(x, 0), ops.dropout(x, 0.5, false)]) {
      expect(y).not.toBe(x);
      expect(await valuesOf(y)).toEqual([1, 2]);
      await ops.sum(y).backward();
    }
    expect(await valuesOf(x.grad!)).toEqual([2, 2]);
    expect(device.streamPosition).toBe(position);
  });

  test("a probability outside 0 to 1 is refused", () => {
    using x = device.zeros([1]);
    for (const p of [-0.1, 1.1, Number.NaN]) expect(() => ops.dropout(x, p)).toThrow(ShapeError);
  });
});

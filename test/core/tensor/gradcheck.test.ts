import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { gradcheck, testDevice } from "./gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

/** Doubles its input; what its backward gives is up to the test. */
function doubling(x: Tensor, backward: (gradient: Tensor) => Tensor): Tensor {
  const out = x.device.adopt(x.device.copyOf(x));
  x.device.backend.kernels.affine(x.span, out.span, 2, 0);
  return x.device.record(out, { op: "doubling", inputs: [x], backward: (gradient) => [backward(gradient)] });
}

function scaled(gradient: Tensor, scale: number): Tensor {
  const out = gradient.device.allocate(gradient.shape, gradient.dtype);
  gradient.device.backend.kernels.affine(gradient.span, out.span, scale, 0);
  return out;
}

test("a right gradient passes the check", async () => {
  await gradcheck(device, (x) => doubling(x, (gradient) => scaled(gradient, 2)), [{ shape: [3] }]);
});

test("a gradient that is off by one part in a hundred thousand fails the check", async () => {
  const wrong = gradcheck(device, (x) => doubling(x, (gradient) => scaled(gradient, 2.00002)), [
    { shape: [3] },
  ]);
  await expect(wrong).rejects.toThrow("gradient of input 0 at 0");
});

test("a backward that writes to a gradient it shares fails the check", async () => {
  const wrong = gradcheck(
    device,
    (x) =>
      doubling(x, (gradient) => {
        gradient.device.backend.kernels.affine(gradient.span, gradient.span, 2, 0);
        return gradient;
      }),
    [{ shape: [3] }],
  );
  await expect(wrong).rejects.toThrow();
});

test("a backward that loses memory fails the check", async () => {
  const wrong = gradcheck(
    device,
    (x) =>
      doubling(x, (gradient) => {
        scaled(gradient, 1);
        return scaled(gradient, 2);
      }),
    [{ shape: [3] }],
  );
  await expect(wrong).rejects.toThrow();
});

test("a composed function of several inputs passes the check", async () => {
  await gradcheck(device, (x, w, b) => ops.mean(ops.tanh(ops.add(ops.matmul(x, w), b))), [
    { shape: [2, 3] },
    { shape: [3, 4] },
    { shape: [4] },
  ]);
});

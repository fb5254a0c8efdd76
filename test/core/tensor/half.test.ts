/**
 * Operations and their gradients in 16-bit floats: those of float32 on the same numbers, within a few roundings.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import type { DType } from "../../../core/contracts/dtype.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Shape } from "../../../core/tensor/shape.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { Stack } from "../../support/models.ts";
import { runRanks } from "../../support/ranks.ts";
import { clearOfZero } from "./gradcheck.ts";

/** Largest relative error of one rounding. */
const UNITS = { float16: 2 ** -11, bfloat16: 2 ** -8 } as const;
const HALVES = ["float16", "bfloat16"] as const;

let device: Device;
beforeAll(async () => {
  device = new Device(await cpuBackend.create({}), { seed: 1 });
});
afterAll(() => device.backend.dispose());

const targets = (rows: number, classes: number): Tensor =>
  device.tensor(
    Int32Array.from({ length: rows }, (_, i) => (i === 2 ? -100 : (i * 5) % classes)),
    { shape: [rows] },
  );

type Operation = (...inputs: Tensor[]) => Tensor;

const OPERATIONS: Readonly<Record<string, readonly [Operation, ...Shape[]]>> = {
  "add, broadcast": [(x, y) => ops.add(x!, y!), [3, 5], [5]],
  "mul, broadcast": [(x, y) => ops.mul(x!, y!), [3, 5], [3, 1]],
  "div by a number and by a tensor": [(x, y) => ops.div(ops.div(x!, 3), y!), [4, 5], [4, 5]],
  "gelu and silu": [(x) => ops.silu(ops.gelu(x!, "tanh")), [40]],
  maximum: [(x, y) => ops.maximum(x!, y!), [9], [9]],
  "where of a comparison": [(x, y) => ops.where(ops.greater(x!, y!), x!, y!), [9], [9]],
  mean: [(x) => ops.mean(x!, { dim: 0 }), [7, 6]],
  softmax: [(x) => ops.softmax(x!), [5, 9]],
  layerNorm: [(x, weight, bias) => ops.layerNorm(x!, weight!, bias), [6, 11], [11], [11]],
  rmsNorm: [(x, weight) => ops.rmsNorm(x!, weight!), [6, 11], [11]],
  linear: [(x, weight, bias) => ops.linear(x!, weight!, bias), [2, 4, 8], [5, 8], [5]],
  matmul: [(x, y) => ops.matmul(x!, y!), [2, 3, 8], [2, 8, 4]],
  "causal attention": [(x) => ops.packedAttention(x!, 2, { causal: true }), [2, 5, 24]],
  embedding: [
    (table) => ops.embedding(table!, device.tensor(Int32Array.of(1, 3, 1), { shape: [3] })),
    [4, 6],
  ],
  "slice and concat": [(x, y) => ops.concat([ops.slice(x!, 1, 1, 3), y!], 1), [3, 4], [3, 2]],
  crossEntropy: [(x) => ops.crossEntropy(x!, targets(6, 7)), [6, 7]],
  linearCrossEntropy: [(x, weight) => ops.linearCrossEntropy(x!, weight!, targets(6, 7)), [6, 4], [7, 4]],
};

/** Values of an operation and of the gradients of its sum, and the dtypes they came in. */
async function evaluate(run: Operation, shapes: readonly Shape[], dtype: DType, rounding: DType) {
  return await device.scope(async () => {
    const inputs = shapes.map((shape, n) => {
      const numel = shape.reduce((a, b) => a * b, 1);
      const values = Float32Array.from({ length: numel }, (_, i) => clearOfZero(i + 17 * n));
      const leaf = ops.cast(ops.cast(device.tensor(values, { shape }), rounding), dtype).keep();
      leaf.requiresGrad = true;
      return leaf;
    });
    const out = run(...inputs);
    const results = [{ dtype: out.dtype, values: await numbers(out) }];
    await ops.sum(out).backward();
    for (const input of inputs) {
      results.push({ dtype: input.grad!.dtype, values: await numbers(input.grad!) });
      input.grad!.dispose();
      input.dispose();
    }
    return results;
  });
}

async function numbers(tensor: Tensor): Promise<number[]> {
  const wide = await device.noGrad(async () => ops.cast(tensor, "float32"));
  return Array.from(await wide.data(), Number);
}

describe.each(HALVES)("%s", (dtype) => {
  for (const [name, [run, ...shapes]] of Object.entries(OPERATIONS)) {
    test(`${name} and its gradients are float32's within a few roundings, in ${dtype}`, async () => {
      const want = await evaluate(run, shapes, "float32", dtype);
      const got = await evaluate(run, shapes, dtype, dtype);
      for (const [i, { values }] of want.entries()) {
        const size = Math.max(1, ...values.map(Math.abs));
        for (const [j, value] of values.entries()) {
          const gap = Math.abs(got[i]!.values[j]! - value);
          if (gap <= 6 * UNITS[dtype] * size) continue;
          expect.unreachable(`result ${i}, element ${j} is ${got[i]!.values[j]}, wanted ${value}`);
        }
      }
      const loss = name.endsWith("CrossEntropy") || name === "crossEntropy";
      expect(got.map((result) => result.dtype)).toEqual([
        loss ? "float32" : dtype,
        ...shapes.map(() => dtype),
      ]);
    });
  }

  test(`shards and their gradients stay float32 when parameters are computed with in ${dtype}`, async () => {
    const mpPolicy = { paramDtype: dtype, reduceDtype: dtype };
    await runRanks(2, async (rank) => {
      const model = new Stack({ layers: 1, features: 3, width: 4, hidden: 5 });
      for (const module of [model.blocks[0]!, model]) fullyShard(module, { mesh: rank.mesh, mpPolicy });
      await model.to(rank.device);
      const seen: DType[] = [];
      model.blocks[0]!.up.wrapCall(async (args, next) => {
        seen.push((args[0] as Tensor).dtype, model.blocks[0]!.up.weight.dtype);
        return await next(args);
      });
      await rank.device.scope(async () => {
        const out = await model.call(rank.device.ones([2, 3]));
        await ops.mean(out).backward();
      });
      expect(seen).toEqual([dtype, dtype]);
      for (const parameter of model.parameters()) {
        expect([parameter.dtype, parameter.local.dtype, parameter.grad!.dtype]).toEqual(
          Array(3).fill("float32"),
        );
      }
    });
  });
});

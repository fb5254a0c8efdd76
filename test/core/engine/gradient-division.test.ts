import { describe, expect, test } from "bun:test";
import type { DType } from "../../../core/contracts/dtype.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import {
  averageDivision,
  type DivisionRequest,
  predivideFactor,
  splitDivision,
} from "../../../core/engine/gradient-division.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import { constant, Module, Parameter } from "../../../core/nn/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { type FSDPModule, type FullyShardOptions, fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";

const request = (
  dtype: DType,
  shardSize: number,
  replicateSize: number,
  factor?: number,
  forceSum = false,
): DivisionRequest => ({ dtype, shardSize, replicateSize, factor, forceSum });

const plan = (
  predivide: number,
  reduceScatter: "sum" | "avg",
  allReduce: "sum" | "avg",
  postdivide: number,
) => ({
  predivide,
  reduceScatter,
  allReduce,
  postdivide,
});

describe("predivideFactor", () => {
  test("is PyTorch's for every world", () => {
    const table = [
      [1, 1],
      [2, 2],
      [3, 2],
      [4, 2],
      [5, 2],
      [6, 4],
      [7, 2],
      [8, 4],
      [12, 4],
      [16, 4],
      [24, 8],
      [32, 8],
      [64, 8],
      [128, 16],
    ] as const;
    for (const [world, factor] of table) {
      expect([world, predivideFactor(world)]).toEqual([world, factor]);
      expect(splitDivision(request("float32", world, 1))).toEqual(plan(factor, "sum", "sum", world / factor));
    }
  });
});

describe("averageDivision", () => {
  test("is FSDP2's table", () => {
    const rows: readonly [DivisionRequest, ReturnType<typeof plan>][] = [
      [request("float32", 1, 1), plan(1, "sum", "sum", 1)],
      [request("float32", 4, 2), plan(1, "avg", "avg", 1)],
      [request("bfloat16", 4, 1), plan(1, "avg", "avg", 1)],
      [request("float32", 4, 2, 4), plan(1, "avg", "sum", 1)],
      [request("float32", 4, 2, 8), plan(8, "sum", "sum", 1)],
      [request("bfloat16", 4, 1, 1), plan(1, "sum", "sum", 1)],
      [request("float16", 4, 2), plan(4, "sum", "sum", 2)],
      [request("float16", 4, 2, 3), plan(2, "sum", "sum", 1.5)],
      [request("float32", 4, 2, undefined, true), plan(1, "sum", "sum", 8)],
      [request("float16", 4, 2, 3, true), plan(1, "sum", "sum", 3)],
    ];
    for (const [given, expected] of rows) expect([given, averageDivision(given)]).toEqual([given, expected]);
  });
});

/** The sum of its weight times a scale: every gradient is the scale. */
class Scaled extends Module<[scale: Tensor], Tensor> {
  readonly weight: Parameter = new Parameter([5], constant(1));
  override forward(scale: Tensor): Tensor {
    return ops.mul(ops.sum(this.weight), scale);
  }
}

/** The gradient when rank r's is r + 1, and the operations that made it. */
async function reduced(
  rank: TestRank,
  options: FullyShardOptions,
  set: (model: FSDPModule) => void,
): Promise<{ readonly gradient: number | undefined; readonly ops: readonly string[] }> {
  const model = fullyShard(new Scaled(), options);
  set(model);
  await model.to(rank.device);
  const names: string[] = [];
  traceUnits(model, (event) => {
    if ("op" in event) names.push(`${event.kind} ${event.op}`);
  });
  await rank.device.scope(async () => {
    const out = await model.call(rank.device.full([], rank.rank + 1));
    await out.backward();
  });
  const gradient = Array.from(await model.weight.grad!.data(), Number);
  expect(new Set(gradient).size).toBeLessThanOrEqual(1);
  return { gradient: gradient[0], ops: names };
}

describe("a reduction", () => {
  const cases: readonly [
    string,
    readonly number[],
    (model: FSDPModule) => void,
    number,
    readonly string[],
  ][] = [
    ["averages", [3], () => {}, 2, ["reduceScatter avg"]],
    ["averages over both dims", [2, 2], () => {}, 2.5, ["reduceScatter avg", "allReduce avg"]],
    [
      "divides by the group",
      [2, 2],
      (m) => m.setGradientDivideFactor(2),
      5,
      ["reduceScatter avg", "allReduce sum"],
    ],
    [
      "divides by a factor",
      [2, 2],
      (m) => m.setGradientDivideFactor(4),
      2.5,
      ["reduceScatter sum", "allReduce sum"],
    ],
    ["sums with factor 1", [4], (m) => m.setGradientDivideFactor(1), 10, ["reduceScatter sum"]],
    [
      "only sums when asked",
      [2, 2],
      (m) => m.setForceSumReductionForComms(true),
      2.5,
      ["reduceScatter sum", "allReduce sum"],
    ],
    ["divides on one rank", [1], (m) => m.setGradientDivideFactor(4), 0.25, []],
    ["replicates only", [3, 1], () => {}, 2, ["allReduce avg"]],
  ];
  for (const [name, shape, set, gradient, names] of cases) {
    test(`${name}: ${shape.join(" x ")} ranks`, async () => {
      const world = shape.reduce((a, b) => a * b, 1);
      const results = await runRanks(world, async (rank) =>
        reduced(rank, { mesh: await initDeviceMesh(rank.collective, shape) }, set),
      );
      for (const result of results) {
        if (result.gradient !== undefined) expect(result.gradient).toBeCloseTo(gradient, 6);
        expect(result.ops).toEqual(names);
      }
    });
  }

  test("may be changed on its way to the replicas", async () => {
    const hook = (gradients: Tensor) => {
      const { span } = gradients;
      gradients.device.backend.kernels.affine(span, span, 10, 0);
    };
    for (const shape of [[2], [2, 2]]) {
      const world = shape.length * 2;
      const results = await runRanks(world, async (rank) =>
        reduced(rank, { mesh: await initDeviceMesh(rank.collective, shape) }, (model) =>
          model.setAllReduceHook(hook),
        ),
      );
      for (const { gradient } of results) {
        if (gradient !== undefined) expect(gradient).toBeCloseTo((10 * (world + 1)) / 2, 4);
      }
    }
  });

  test("divides one group alone by a factor, which must be a number > 0", async () => {
    await runRanks(1, async ({ mesh }) => {
      const model = fullyShard(new Scaled(), { mesh });
      for (const factor of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, "2" as never]) {
        expect(() => model.setGradientDivideFactor(factor)).toThrow(ConfigError);
      }
    });
  });
});

describe("a hook that fails on one rank", () => {
  test("ends the replicas too, which would wait for it", async () => {
    const errors = await runRanks(2, async (rank) => {
      const mesh = await initDeviceMesh(rank.collective, [2, 1]);
      const model = fullyShard(new Scaled(), { mesh });
      model.setAllReduceHook(() => {
        if (rank.rank === 1) throw new ConfigError("no such hook");
      });
      await model.to(rank.device);
      return await rank.device
        .scope(async () => {
          const out = await model.call(rank.device.full([], 1));
          await out.backward();
        })
        .catch(String);
    });
    for (const error of errors) expect(error).toContain("no such hook");
  });
});

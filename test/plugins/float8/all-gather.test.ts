import { describe, expect, test } from "bun:test";
import type { Collective } from "../../../core/contracts/collective.ts";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import { shardModule } from "../../../core/engine/shard-module.ts";
import { Linear } from "../../../core/nn/mod.ts";
import { SGD } from "../../../core/optim/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import {
  convertToFloat8Training,
  type Float8TrainingOptions,
  precomputeFloat8DynamicScaleForFsdp,
} from "../../../plugins/float8/mod.ts";
import { flatShard } from "../../../plugins/fsdp1/flat-shard.ts";
import { type FullyShardOptions, fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { amaxOf, throughE4M3 } from "../../support/e4m3.ts";
import { Block } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";

/** A layer whose weights differ much from row to row, so that it matters what a scale is for. */
function layer(outputs: number, inputs: number): Linear {
  const linear = new Linear(inputs, outputs, { bias: false });
  const { initializer } = linear.weight;
  linear.weight.initializer = async (request) => {
    const { box, out } = request;
    await initializer(request);
    const columns = box.sizes[1]!;
    for (let i = 0; i < out.length; i++) {
      const row = box.offsets[0]! + Math.floor(i / columns);
      out[i] = Number(out[i]) * 3 ** (row % 4);
    }
  };
  return linear;
}

interface Gathered {
  /** What is stored, of all ranks. */
  readonly stored: number[];
  /** What the layer computes with. */
  readonly computed: number[];
}

/** A layer's weight before and after its gather. */
async function gather(
  rank: TestRank,
  linear: Linear,
  options: Float8TrainingOptions,
  sharding: Partial<FullyShardOptions> = {},
  agree = false,
): Promise<Gathered> {
  const model = fullyShard(convertToFloat8Training(linear, options), { mesh: rank.mesh, ...sharding });
  await model.to(rank.device);
  const stored = Array.from((await gatherParameter(linear.weight)) as Float32Array);
  if (agree) await precomputeFloat8DynamicScaleForFsdp(model);
  await model.unshard();
  const computed = Array.from((await linear.weight.data()) as Float32Array, Number);
  await model.reshard();
  return { stored, computed };
}

/** Rows, those that one rank holds, or all. */
function inBlocks(values: readonly number[], size: number): number[][] {
  return Array.from({ length: Math.ceil(values.length / size) }, (_, i) =>
    values.slice(i * size, (i + 1) * size),
  );
}

const WORLDS = [1, 2, 3, 4];
const [OUTPUTS, INPUTS] = [7, 6];

describe("a weight that was converted to float8", () => {
  for (const world of WORLDS) {
    const chunk = Math.ceil(OUTPUTS / world) * INPUTS;
    const twins = [
      {
        name: "rowwise: a power of two for each row",
        options: { recipe: "rowwise" },
        block: INPUTS,
        power: true,
      },
      {
        name: "rowwise: any scale for each row",
        options: { recipe: "rowwise", roundScalesToPowerOf2: false },
        block: INPUTS,
        power: false,
      },
      { name: "tensorwise: each rank's own scale", options: {}, block: chunk, power: false },
      {
        name: "tensorwise: one that is agreed on",
        options: {},
        block: OUTPUTS * INPUTS,
        power: false,
        agree: true,
      },
      {
        name: "tensorwise: one power of two",
        options: { recipe: "tensorwise", roundScalesToPowerOf2: true },
        block: OUTPUTS * INPUTS,
        power: true,
        agree: true,
      },
    ] as const;
    for (const twin of twins) {
      test(`is computed with as the table of the format says, on ${world} ranks, ${twin.name}`, async () => {
        const agree = "agree" in twin;
        const results = await runRanks(world, (rank) =>
          gather(rank, layer(OUTPUTS, INPUTS), twin.options, {}, agree),
        );
        for (const { stored, computed } of results) {
          const want = inBlocks(stored, twin.block).flatMap((values) =>
            throughE4M3(values, amaxOf(values), twin.power),
          );
          expect(computed).toEqual(want);
          expect(stored).toEqual(results[0]!.stored);
        }
      });
    }

    test(`may be cut on its columns, evenly or not: ${world} ranks`, async () => {
      for (const [inputs, recipe] of [
        [12, "rowwise"],
        [12, "tensorwise"],
        [7, "rowwise"],
        [7, "tensorwise"],
      ] as const) {
        const columns = Math.ceil(inputs / world);
        const [first] = await runRanks(world, (rank) =>
          gather(rank, layer(5, inputs), { recipe }, { shardPlacementFn: () => 1 }, true),
        );
        const { stored, computed } = first!;
        // Of an even cut a scale is for a rank's part of a row.
        const parts = (values: readonly number[]) =>
          inBlocks(values, inputs).flatMap((row) => inBlocks(row, columns));
        if (recipe === "tensorwise") expect(computed).toEqual(throughE4M3(stored, amaxOf(stored), false));
        else if (inputs % world === 0) {
          expect(computed).toEqual(
            parts(stored).flatMap((values) => throughE4M3(values, amaxOf(values), true)),
          );
        } else {
          // A scale of a block: three bits of fraction, or the last place of subnormals.
          const most = amaxOf(stored);
          for (const [i, x] of stored.entries()) {
            expect(Math.abs(computed[i]! - x)).toBeLessThanOrEqual(Math.abs(x) / 16 + most * 2 ** -17);
          }
        }
      }
    });
  }

  test("is gathered over far memory, from offloaded shards and within replicas as in plain", async () => {
    const [plain] = await runRanks(2, (rank) => gather(rank, layer(7, 6), {}, {}, true));
    const ways: Record<string, (rank: TestRank) => Promise<Gathered>> = {
      far: (rank) => {
        const device = new Device(remote(rank.device.backend), { seed: 7 });
        return gather({ ...rank, device }, layer(7, 6), {}, {}, true);
      },
      offloaded: (rank) => {
        const device = new Device(remote(rank.device.backend), { seed: 7 });
        return gather({ ...rank, device }, layer(7, 6), {}, { offloadPolicy: { device: rank.device } }, true);
      },
    };
    for (const [name, way] of Object.entries(ways)) {
      for (const result of await runRanks(2, way)) expect({ name, ...result }).toEqual({ name, ...plain! });
    }
    const replicated = await runRanks(4, async (rank) =>
      gather(rank, layer(7, 6), {}, { mesh: await initDeviceMesh(rank.collective, [2, 2]) }, true),
    );
    for (const result of replicated) expect(result).toEqual(plain!);
  });

  test("may be cut somewhere in a row, with a scale for the matrix", async () => {
    for (const world of WORLDS) {
      await runRanks(world, async ({ mesh, device }) => {
        const linear = convertToFloat8Training(layer(5, 7));
        const unit = shardModule(linear, {
          layout: flatShard({ useOrigParams: false }),
          group: mesh.group(0),
        });
        await linear.to(device);
        const stored = Array.from((await gatherParameter(linear.weight)) as Float32Array);
        await precomputeFloat8DynamicScaleForFsdp(linear);
        await unit!.unshard();
        const computed = Array.from((await linear.weight.data()) as Float32Array);
        expect(computed).toEqual(throughE4M3(stored, amaxOf(stored), false));
      });
    }
  });

  test("stays zero where it is zero, and is not a number where it is none on any rank", async () => {
    for (const recipe of ["tensorwise", "rowwise"] as const) {
      for (const bad of [0, Number.NaN]) {
        const results = await runRanks(2, (rank) => {
          const linear = new Linear(4, 6, { bias: false });
          linear.weight.initializer = ({ box, out }) => {
            out.fill(0 as never);
            if (box.offsets[0]! + box.sizes[0]! === 6) out[out.length - 1] = bad;
          };
          return gather(rank, linear, { recipe }, {}, true);
        });
        for (const { computed } of results) {
          expect(computed[23]).toBe(bad);
          if (bad === 0) expect(computed).toEqual(Array(24).fill(0));
        }
      }
    }
  });

  test("is computed with in the policy's dtype, and stored in its own", async () => {
    const [plain] = await runRanks(2, (rank) => gather(rank, layer(7, 6), {}, {}, true));
    const [half] = await runRanks(2, (rank) =>
      gather(rank, layer(7, 6), {}, { mpPolicy: { paramDtype: "float16" } }, true),
    );
    expect(half!.computed).toEqual(plain!.computed.map(Math.f16round));
    expect(half!.stored).toEqual(plain!.stored);
  });
});

/** A group that counts the bytes that this rank gives to gathers. */
function weighed(inner: Collective, sent: number[]): Collective {
  return new Proxy(inner, {
    get(target, key) {
      if (key === "allGather") {
        const allGather: Collective["allGather"] = (output, input) => {
          sent.push(input.byteLength);
          return target.allGather(output, input);
        };
        return allGather;
      }
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

describe("what a gather sends", () => {
  test("is a quarter of float32's for matrices, and 4 bytes for a scale", async () => {
    await runRanks(2, async (rank) => {
      const sentFor = async (options?: Float8TrainingOptions): Promise<number[]> => {
        const sent: number[] = [];
        const mesh = await initDeviceMesh(weighed(rank.collective, sent));
        const plain = new Linear(64, 64, { bias: false });
        const model = fullyShard(options === undefined ? plain : convertToFloat8Training(plain, options), {
          mesh,
        });
        await model.to(rank.device);
        await model.unshard();
        await model.reshard();
        return sent;
      };
      const float32 = 32 * 64 * 4;
      expect(await sentFor()).toEqual([float32]);
      // Segments are padded to 16 bytes.
      expect(await sentFor({ recipe: "tensorwise" })).toEqual([float32 / 4 + 16]);
      expect(await sentFor({ recipe: "rowwise" })).toEqual([float32 / 4 + 4 * 32]);
    });
  });

  test("has what was not converted as it is, in the same one gather", async () => {
    await runRanks(2, async (rank) => {
      const sent: number[] = [];
      const mesh = await initDeviceMesh(weighed(rank.collective, sent));
      const model = convertToFloat8Training(new Block(16, 32), {
        moduleFilterFn: (_, name) => name !== "down",
      });
      fullyShard(model, { mesh });
      await model.to(rank.device);
      await rank.device.scope(async () => void (await model.call(rank.device.ones([2, 16]))));
      const up = (32 * 16) / 2 + 16;
      const rest = 4 * (32 + 16 * 32 + 16);
      expect(sent).toEqual([up + rest / 2]);
    });
  });
});

/** Some steps of a block; what was called, and the losses. */
async function train(
  rank: TestRank,
  sharding: Partial<FullyShardOptions>,
  options: Float8TrainingOptions = {},
) {
  const model = convertToFloat8Training(new Block(6, 7), options);
  fullyShard(model, { mesh: rank.mesh, ...sharding });
  await model.to(rank.device);
  const optimizer = new SGD(model.parameters(), { lr: 0.05 });
  const losses: number[] = [];
  const reductions: number[] = [];
  const { device, calls } = rank;
  for (let step = 0; step < 3; step++) {
    for (const _ of [1, 2]) {
      calls.length = 0;
      await precomputeFloat8DynamicScaleForFsdp(model);
      reductions.push(calls.filter((name) => name === "allReduce").length);
    }
    await device.scope(async () => {
      const loss = ops.mean(ops.pow(await model.call(device.ones([2, 6])), 2));
      await loss.backward();
      losses.push(await loss.item());
    });
    optimizer.step();
    optimizer.zeroGrad();
  }
  return { losses, reductions };
}

describe("a scale that ranks agree on", () => {
  test("takes one all-reduce for the model after each update, none while nothing changed, none for rows", async () => {
    for (const { reductions } of await runRanks(2, (rank) => train(rank, {}))) {
      expect(reductions).toEqual([1, 0, 1, 0, 1, 0]);
    }
    for (const { reductions } of await runRanks(2, (rank) => train(rank, {}, { recipe: "rowwise" }))) {
      expect(reductions).toEqual([0, 0, 0, 0, 0, 0]);
    }
  });

  test("makes a run the same on any number of ranks, however parameters are kept between passes", async () => {
    const [alone] = await runRanks(1, (rank) => train(rank, {}));
    expect(alone!.losses[2]!).toBeLessThan(alone!.losses[0]!);
    for (const world of [2, 4]) {
      for (const reshardAfterForward of [true, false, 2]) {
        for (const { losses } of await runRanks(world, (rank) => train(rank, { reshardAfterForward }))) {
          for (const [i, loss] of losses.entries()) expect(loss).toBeCloseTo(alone!.losses[i]!, 5);
        }
      }
    }
  });

  test("leaves no memory behind: every step holds as much as the one before", async () => {
    await runRanks(2, async (rank) => {
      const model = convertToFloat8Training(new Block(6, 7));
      fullyShard(model, { mesh: rank.mesh });
      await model.to(rank.device);
      const { memory } = rank.device.backend;
      const held: number[] = [];
      const peaks: number[] = [];
      for (let step = 0; step < 3; step++) {
        memory.resetPeak();
        await precomputeFloat8DynamicScaleForFsdp(model);
        await rank.device.noGrad(() =>
          rank.device.scope(async () => void (await model.call(rank.device.ones([2, 6])))),
        );
        held.push(memory.report().currentTotal);
        peaks.push(memory.report().peakTotal);
        for (const parameter of model.parameters()) parameter.updated();
      }
      expect(new Set(held).size).toBe(1);
      expect(new Set(peaks).size).toBe(1);
    });
  });
});

import { describe, expect, test } from "bun:test";
import { ConfigError, ShapeError, StateError } from "../../../core/contracts/errors.ts";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import { unitOf, unitsBelow } from "../../../core/engine/sharded-modules.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import type { UnitEvent } from "../../../core/engine/unit-events.ts";
import {
  constant,
  Embedding,
  type Initializer,
  Linear,
  Module,
  Parameter,
  type ParameterOptions,
  uniform,
} from "../../../core/nn/mod.ts";
import { SGD } from "../../../core/optim/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { expectSame, forwardBackward, smallStack, trainedAlone, trainStack } from "../../support/training.ts";

/** What units do from now on, as short words: `U 0` gathers unit 0, `R` frees it, `P` its backward is over. */
function follow(model: Module<never[], unknown>): string[] {
  const words: string[] = [];
  const letters: Partial<Record<UnitEvent["kind"], string>> = {
    unshard: "U",
    reshard: "R",
    postBackward: "P",
  };
  traceUnits(model, ({ kind, unit }) => {
    if (letters[kind] !== undefined) words.push(`${letters[kind]} ${unit === "" ? "root" : unit}`);
  });
  return words;
}

const WORLDS = [1, 2, 3, 4];
const reference = await trainedAlone();

describe("a list of modules", () => {
  for (const worldSize of WORLDS) {
    test(`is one group, and trains as one rank alone does on ${worldSize} ranks`, async () => {
      const results = await runRanks(worldSize, (rank) =>
        trainStack(rank, {
          shard: (model) => {
            const { mesh } = rank;
            fullyShard([model.blocks[0]!, model.blocks[1]!], { mesh });
            fullyShard([model.inner, model.outer], { mesh });
            fullyShard(model, { mesh });
            expect(unitsBelow(model).length).toBe(3);
          },
        }),
      );
      expectSame(results, reference);
    });
  }

  test("is gathered before the first and freed after the last of them", async () => {
    await runRanks(2, async (rank) => {
      const { mesh } = rank;
      const model = smallStack(1);
      fullyShard(model.blocks[0]!, { mesh });
      fullyShard([model.inner, model.outer], { mesh, reshardAfterForward: true });
      fullyShard(model, { mesh });
      await model.to(rank.device);
      await rank.device.noGrad(() =>
        rank.device.scope(async () => void (await model.call(rank.device.ones([1, 5])))),
      );
      const words = follow(model);
      await forwardBackward(rank, model, 0);
      const ends = "inner,outer";
      expect(words).toEqual([
        ...[`U ${ends}`, "U blocks.0", "R blocks.0", `R ${ends}`],
        ...[`U ${ends}`, "U blocks.0", "R blocks.0", "P blocks.0", `R ${ends}`, `P ${ends}`],
      ]);
    });
  });

  /** Stops before its last module. */
  class Trunk extends Module<[x: Tensor], Tensor> {
    readonly first: Linear = new Linear(4, 4);
    readonly head: Linear = new Linear(4, 3);
    override forward(x: Tensor): Promise<Tensor> {
      return this.first.call(x);
    }
  }

  test("that runs in part is complete when the root's forward ends, and serves its other modules afterwards", async () => {
    for (const worldSize of [1, 2, 3]) {
      const gradients = await runRanks(worldSize, async (rank) => {
        const model = new Trunk();
        const group = fullyShard([model.first, model.head], { mesh: rank.mesh });
        fullyShard(model, { mesh: rank.mesh });
        await model.to(rank.device);
        await rank.device.scope(async () => {
          const states = await model.call(rank.device.ones([2, 4]));
          expect(unitOf(group[0])!.state).toBe("sharded");
          const words = follow(model);
          // Loss in chunks: the head runs again and again, and stays gathered meanwhile.
          let total = ops.sum(await model.head.call(states));
          for (let chunk = 1; chunk < 3; chunk++) {
            total = ops.add(total, ops.sum(await model.head.call(states)));
          }
          expect(words).toEqual(["U first,head"]);
          await total.backward();
          expect(words).toEqual(["U first,head", "R first,head", "P first,head"]);
        });
        return (await gatherGradient(rank, model.head.bias!)) as readonly number[];
      });
      for (const gradient of gradients) expect(gradient).toEqual([6, 6, 6]);
    }
  });

  test("leaves the gradient of a module that did not run undefined", async () => {
    await runRanks(2, async (rank) => {
      const model = new Trunk();
      fullyShard([model.first, model.head], { mesh: rank.mesh });
      fullyShard(model, { mesh: rank.mesh });
      await model.to(rank.device);
      await rank.device.scope(async () => {
        await ops.sum(await model.call(rank.device.ones([2, 4]))).backward();
      });
      expect(model.first.weight.grad).toBeDefined();
      expect(model.head.weight.grad).toBeUndefined();
      for (const unit of unitsBelow(model)) expect(unit.state).toBe("sharded");
    });
  });

  test("cannot be the root, nor be empty", async () => {
    await runRanks(1, async ({ mesh, device }) => {
      const [first] = fullyShard([new Linear(2, 2), new Linear(2, 2)], { mesh });
      await first.to(device);
      await expect(first.call(device.ones([1, 2]))).rejects.toThrow(StateError);
      await expect(first.call(device.ones([1, 2]))).rejects.toThrow(/cannot be the root/);
      expect(() => fullyShard([], { mesh })).toThrow(ConfigError);
    });
  });
});

/** The whole gradient of a parameter, by summing what the ranks hold. */
async function gatherGradient(rank: TestRank, parameter: Parameter): Promise<readonly number[]> {
  const whole = new Float64Array(parameter.numel);
  const own = Array.from(await parameter.grad!.data(), Number);
  for (const { offsets, sizes, localOffset } of parameter.pieces) {
    // One dim, or rows of several: both begin at the first offset.
    const row = parameter.numel / parameter.shape[0]!;
    const count = sizes.reduce((n, extent) => n * extent, 1);
    for (let i = 0; i < count; i++) whole[offsets[0]! * row + i] = own[localOffset + i]!;
  }
  await rank.collective.allReduce(whole, "sum", "float64").wait();
  return Array.from(whole);
}

describe("tied parameters", () => {
  /** An embedding whose table is the output layer's weight. */
  class Tied extends Module<[ids: Tensor], Tensor> {
    readonly embed: Embedding;
    readonly middle: Linear = new Linear(3, 3);
    readonly head: Linear;
    constructor(rows: number) {
      super();
      this.embed = new Embedding(rows, 3);
      this.head = new Linear(3, rows, { bias: false });
      Object.assign(this.head, { weight: this.embed.weight });
    }
    override async forward(ids: Tensor): Promise<Tensor> {
      return await this.head.call(await this.middle.call(await this.embed.call(ids)));
    }
  }

  const weightsAfterStep = async (worldSize: number, shard: boolean) =>
    await runRanks(worldSize, async (rank) => {
      const model = new Tied(17);
      if (shard) {
        fullyShard([model.embed, model.head], { mesh: rank.mesh });
        fullyShard(model, { mesh: rank.mesh });
      }
      await model.to(rank.device);
      const start = Array.from(await gatherParameter(model.embed.weight), Number);
      const optimizer = new SGD(model.parameters(), { lr: 1 });
      await rank.device.scope(async () => {
        const ids = rank.device.tensor(Int32Array.from([0, 1, 2]));
        await ops.mean(await model.call(ids)).backward();
      });
      optimizer.step();
      return { start, end: Array.from(await gatherParameter(model.embed.weight), Number) };
    });

  for (const worldSize of [1, 2, 3, 4]) {
    test(`in one group have one shard and the gradients of both uses on ${worldSize} ranks`, async () => {
      const [alone] = await weightsAfterStep(1, false);
      for (const { start, end } of await weightsAfterStep(worldSize, true)) {
        for (const [i, value] of end.entries()) {
          expect(value).toBeCloseTo(alone!.end[i]!, 6);
          expect(value).not.toBe(start[i]!);
        }
      }
    });
  }

  test("in two groups are refused, with both names and what to do", async () => {
    await runRanks(1, async ({ mesh }) => {
      const model = new Tied(4);
      model.nameParameters();
      fullyShard(model.embed, { mesh });
      expect(() => fullyShard(model.head, { mesh })).toThrow(
        /Sharding Linear failed: parameter "weight" is tied to "embed\.weight" of unit "Embedding".*in one call, as a list/,
      );
      expect(() => fullyShard(model, { mesh })).toThrow(/"head\.weight" is tied to "embed\.weight"/);
    });
  });
});

describe("ignored parameters", () => {
  test("stay whole, and their gradients the rank's own", async () => {
    await runRanks(2, async (rank) => {
      const model = new Linear(3, 4);
      const weight = model.weight;
      fullyShard(model, { mesh: rank.mesh, ignoredParams: [weight] });
      await model.to(rank.device);
      expect(weight.manager).toBeUndefined();
      expect(weight.local.shape).toEqual([4, 3]);
      await rank.device.scope(async () => {
        const x = rank.device.full([1, 3], rank.rank + 1);
        await ops.sum(await model.call(x)).backward();
      });
      expect(new Set((await weight.grad!.data()) as Float32Array)).toEqual(new Set([rank.rank + 1]));
      expect(await gatherGradient(rank, model.bias!)).toEqual([1, 1, 1, 1]);
    });
  });
});

describe("a parameter added after its module was sharded", () => {
  test("is named before anything computes", async () => {
    await runRanks(1, async ({ mesh, device }) => {
      const model = smallStack(1);
      fullyShard(model.blocks[0]!, { mesh });
      fullyShard(model, { mesh });
      Object.assign(model.blocks[0]!.up, { weight: new Parameter([7, 6], constant(0)) });
      await model.to(device);
      await expect(model.call(device.ones([1, 5]))).rejects.toThrow(
        /"blocks\.0\.up\.weight" was added after/,
      );
    });
  });
});

/** Sums of products of parameters with constants, so that gradients are known. */
class Pair extends Module<[scale: Tensor], Tensor> {
  readonly first: Parameter;
  readonly second: Parameter;
  constructor(first: ParameterOptions = {}, second: ParameterOptions = {}, init: Initializer = uniform(1)) {
    super();
    this.first = new Parameter([5, 3], init, first);
    this.second = new Parameter([7], init, second);
  }
  override forward(scale: Tensor): Tensor {
    const total = (parameter: Parameter) => {
      const sum = ops.sum(parameter);
      return sum.dtype === "float32" ? sum : ops.cast(sum, "float32");
    };
    return ops.mul(ops.add(total(this.first), total(this.second)), scale);
  }
}

describe("a group of several dtypes", () => {
  for (const worldSize of WORLDS) {
    test(`gathers each in its own and keeps gradients so, in one collective each way, on ${worldSize} ranks`, async () => {
      await runRanks(worldSize, async (rank) => {
        const model = new Pair({}, { dtype: "float64" });
        const names: string[] = [];
        fullyShard(model, { mesh: rank.mesh });
        await model.to(rank.device);
        model.wrapCall((args, next) => {
          names.push(model.first.dtype, model.second.dtype);
          return next(args);
        }, "inside");
        const whole = await Promise.all(model.parameters().map((p) => gatherParameter(p)));
        const expected = whole.reduce(
          (sum, values) => Array.from(values, Number).reduce((a, b) => a + b, sum),
          0,
        );
        rank.calls.length = 0;
        await rank.device.scope(async () => {
          const out = await model.call(rank.device.full([], 2));
          expect(await out.item()).toBeCloseTo(2 * expected, 4);
          await out.backward();
        });
        expect(names).toEqual(["float32", "float64"]);
        expect(rank.calls).toEqual(worldSize === 1 ? [] : ["allGather", "reduceScatter"]);
        expect(model.second.grad!.dtype).toBe("float64");
        expect(model.first.grad!.dtype).toBe("float32");
        expect(new Set(await gatherGradient(rank, model.second))).toEqual(new Set([2]));
      });
    });
  }

  test("takes frozen parameters that are no floating numbers, uncast", async () => {
    await runRanks(2, async (rank) => {
      const codes = { dtype: "uint8", requiresGrad: false } as const;
      const model = new Pair({}, codes, ({ out, box }) => {
        for (let i = 0; i < out.length; i++) out[i] = box.offsets[0]! + i + 1;
      });
      fullyShard(model, { mesh: rank.mesh, mpPolicy: { paramDtype: "float64", reduceDtype: "float64" } });
      await model.to(rank.device);
      let seen: readonly number[] = [];
      model.wrapCall(async (args, _next) => {
        expect(model.second.dtype).toBe("uint8");
        seen = Array.from(await model.second.data(), Number);
        return ops.sum(ops.mul(model.first, args[0] as Tensor));
      }, "inside");
      await rank.device.scope(async () => {
        await (await model.call(rank.device.full([], 1))).backward();
      });
      expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7]);
      expect(model.second.grad).toBeUndefined();
      expect(model.first.grad!.dtype).toBe("float32");
    });
  });
});

describe("shardPlacementFn", () => {
  for (const worldSize of WORLDS) {
    test(`cuts on any dim, evenly or not, and trains as one rank alone does on ${worldSize} ranks`, async () => {
      const results = await runRanks(worldSize, (rank) =>
        trainStack(rank, {
          shard: (model) => {
            const shardPlacementFn = ({ shape }: Parameter) => shape.indexOf(Math.max(...shape));
            for (const block of model.blocks) fullyShard(block, { mesh: rank.mesh, shardPlacementFn });
            fullyShard(model, {
              mesh: rank.mesh,
              shardPlacementFn: (parameter) => (parameter === model.inner.weight ? -1 : undefined),
            });
          },
        }),
      );
      expectSame(results, reference);
    });
  }

  test("gives each rank its part of that dim, and refuses dims that there are not", async () => {
    await runRanks(2, async (rank) => {
      const model = fullyShard(new Linear(5, 3), {
        mesh: rank.mesh,
        shardPlacementFn: ({ shape }) => shape.length - 1,
      });
      await model.to(rank.device);
      expect(model.weight.local.shape).toEqual([3, rank.rank === 0 ? 3 : 2]);
      const options = { mesh: rank.mesh, shardPlacementFn: () => 1 };
      expect(() => fullyShard(new Linear(2, 2), options)).toThrow(ShapeError);
    });
  });
});

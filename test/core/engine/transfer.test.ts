import { describe, expect, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import type { Collective, ReductionOp, Work } from "../../../core/contracts/collective.ts";
import type { DType, HostArray } from "../../../core/contracts/dtype.ts";
import { DeviceError } from "../../../core/contracts/errors.ts";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import { allGather, reduceScatter } from "../../../core/engine/transfer.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { concatenated, inputOf, reduced } from "../../conformance/collective/oracle.ts";
import { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";

/** Runs ranks on devices of that kind. */
function runRemote<T>(worldSize: number, body: (rank: TestRank) => Promise<T>): Promise<T[]> {
  return runRanks(worldSize, (rank) =>
    body({ ...rank, device: new Device(remote(rank.device.backend), { seed: 7 }) }),
  );
}

/** A tensor with the values of an oracle's input. */
function tensorOf(device: Device, dtype: DType, values: HostArray): Tensor {
  const tensor = device.allocate([values.length], dtype);
  device.backend.write(tensor.span, values);
  return tensor;
}

const DTYPES: readonly DType[] = ["float32", "float64", "float16", "bfloat16"];

describe("on device memory that the host does not see", () => {
  const transfers = fc.array(
    fc.record({
      name: fc.constantFrom("allGather", "reduceScatter", "allReduce"),
      dtype: fc.constantFrom(...DTYPES),
      op: fc.constantFrom<ReductionOp>("sum", "avg", "max"),
      length: fc.nat(20),
      inPlace: fc.boolean(),
      seed: fc.nat(1000),
    }),
    { minLength: 1, maxLength: 8 },
  );

  test.each([2, 3])("slices that go in pieces arrive whole over %i ranks", async (worldSize) => {
    const numel = 2 * 2 ** 20 + 5;
    await runRemote(worldSize, async ({ rank, device, collective }) => {
      const values = (of: number, i: number): number => (of + 1) * (i % 1009);
      const input = tensorOf(
        device,
        "float32",
        Float32Array.from({ length: numel }, (_, i) => values(rank, i)),
      );
      const whole = device.allocate([worldSize * numel], "float32");
      const part = device.allocate([numel], "float32");
      const gathered = allGather(collective, whole, input);
      await gathered.wait();
      const everything = await whole.data();
      for (let i = 0; i < everything.length; i += 997) {
        expect(everything[i]).toBe(values(Math.floor(i / numel), i % numel));
      }
      await reduceScatter(collective, part, whole, "sum").wait();
      const sums = await part.data();
      for (let i = 0; i < numel; i += 997) expect(sums[i]).toBe(worldSize * values(rank, i));
      for (const tensor of [input, whole, part]) tensor.dispose();
      expect(device.backend.memory.report().currentTotal).toBe(0);
    });
  });

  test.each([1, 2, 3, 4])(
    "transfers over %i ranks give the oracle's bits, all outstanding at once, and leave no memory behind",
    async (worldSize) => {
      const property = fc.asyncProperty(transfers, async (specs) => {
        await runRemote(worldSize, async ({ rank, device, collective }) => {
          const { memory } = device.backend;
          const started = specs.map(({ name, dtype, op, length, inPlace, seed }) => {
            const count = name === "reduceScatter" ? worldSize * length : length;
            const inputs = Array.from({ length: worldSize }, (_, r) => inputOf(dtype, count, seed, r));
            const data = inputs[rank]!;
            if (name === "allReduce") {
              // On host memory, in the midst of the others: the order holds all the same.
              const expected = reduced(inputs, op, dtype);
              return {
                work: collective.allReduce(data, op, dtype),
                tensors: [],
                read: async () => data,
                expected,
              };
            }
            if (name === "allGather") {
              const output = device.allocate([worldSize * length], dtype);
              const input = inPlace
                ? output.alias([length], rank * length)
                : device.allocate([length], dtype);
              device.backend.write(input.span, data);
              const work = allGather(collective, output, input);
              const expected = concatenated(dtype, inputs);
              return { work, tensors: [output, input], read: () => output.data(), expected };
            }
            const input = tensorOf(device, dtype, data);
            const output = device.allocate([length], dtype);
            // A third is not a binary number: only powers of two divide as they multiply.
            const exact = op === "avg" && worldSize === 3 ? "sum" : op;
            const work = reduceScatter(collective, output, input, exact);
            const expected = reduced(inputs, exact, dtype).slice(rank * length, (rank + 1) * length);
            return { work, tensors: [output, input], read: () => output.data(), expected };
          });
          for (const { work, tensors, read, expected } of started.reverse()) {
            await work.wait();
            expect(await read()).toEqual(expected);
            for (const tensor of tensors) tensor.dispose();
          }
          expect(memory.report().currentTotal).toBe(0);
        });
      });
      await fc.assert(property, { numRuns: 15, endOnFailure: true });
    },
  );

  test("an average over three ranks is right to the last bit but one", async () => {
    await runRemote(3, async ({ rank, device, collective }) => {
      const inputs = [0, 1, 2].map((r) => inputOf("float32", 30, 5, r));
      const output = device.allocate([10], "float32");
      await reduceScatter(collective, output, tensorOf(device, "float32", inputs[rank]!), "avg").wait();
      const expected = reduced(inputs, "avg", "float32").slice(10 * rank, 10 * rank + 10);
      for (const [i, value] of (await output.data()).entries()) {
        expect(Math.abs(Number(value) / Number(expected[i]!) - 1)).toBeLessThan(2 ** -22);
      }
    });
  });

  test("a transfer is of what was there at the call, whatever is written afterwards", async () => {
    await runRemote(2, async ({ rank, device, collective }) => {
      const input = tensorOf(device, "float32", Float32Array.of(rank + 1));
      const output = device.allocate([2], "float32");
      const work = allGather(collective, output, input);
      device.backend.kernels.fill(input.span, 9);
      await work.wait();
      expect(await output.data()).toEqual(Float32Array.of(1, 2));
    });
  });

  test("an average of large float16 numbers does not overflow on the way", async () => {
    await runRemote(2, async ({ device, collective }) => {
      const output = device.allocate([1], "float16");
      const input = tensorOf(device, "float16", Float16Array.of(60000, 60000));
      await reduceScatter(collective, output, input, "avg").wait();
      expect(await output.data()).toEqual(Float16Array.of(60000));
    });
  });

  test("sizes that do not fit throw at the call, and reject on the other ranks", async () => {
    await runRemote(2, async ({ rank, device, collective }) => {
      const output = device.allocate([4], "float32");
      const input = device.allocate([rank === 0 ? 2 : 3], "float32");
      const start = (): Work => allGather(collective, output, input);
      if (rank === 1) expect(start).toThrow("allGather over 2 ranks: float32[4] was given with float32[3]");
      else await expect(start().wait()).rejects.toThrow("aborted by rank 1: allGather over 2 ranks");
    });
  });

  test("a read that fails rejects on every rank, then and later, and leaves nothing allocated", async () => {
    await runRanks(3, async ({ rank, device: { backend }, collective }) => {
      const lost = async (): Promise<void> => {
        throw new DeviceError("the device was lost");
      };
      const device = new Device(remote(backend, rank === 1 ? lost : undefined));
      const input = tensorOf(device, "bfloat16", new Uint16Array(6));
      const output = device.allocate([2], "bfloat16");
      for (let i = 0; i < 2; i++) {
        const waiting = reduceScatter(collective, output, input, "avg").wait();
        await expect(waiting).rejects.toThrow("the device was lost");
      }
      const later = collective.barrier().wait();
      await expect(later).rejects.toThrow("aborted by rank 1: the device was lost");
      input.dispose();
      output.dispose();
      expect(backend.memory.report().currentTotal).toBe(0);
    });
  });

  test("tensors disposed while they are under way reject the wait, and nobody must await it", async () => {
    await runRemote(2, async ({ device, collective }) => {
      const input = device.allocate([2], "float32");
      const output = device.allocate([4], "float32");
      allGather(collective, output, input);
      const work = allGather(collective, output, input);
      input.dispose();
      output.dispose();
      await expect(work.wait()).rejects.toMatchObject({ name: "StateError" });
      await collective.barrier().wait();
      expect(device.backend.memory.report().currentTotal).toBe(0);
    });
  });

  test("windows are given back, and not before every rank has released what lies in them", async () => {
    await runRemote(3, async ({ device, collective }) => {
      let live = 0;
      let most = 0;
      let shared = 0;
      const watched: Collective = {
        ...collective,
        async share(input, filled) {
          const inputs = await collective.share(input, filled);
          shared++;
          inputs.released.then(() => shared--);
          return inputs;
        },
        window(byteLength) {
          const inner = collective.window(byteLength);
          most = Math.max(most, ++live);
          const release = (): void => {
            live--;
            expect(shared).toBeLessThanOrEqual(live);
          };
          return { ...inner, release };
        },
      };
      const input = tensorOf(device, "float32", Float32Array.of(1, 2));
      const output = device.allocate([6], "float32");
      for (let step = 0; step < 20; step++) await allGather(watched, output, input).wait();
      await collective.barrier().wait();
      await sleep(1);
      expect(live).toBe(0);
      expect(most).toBeLessThanOrEqual(2);
    });
  });
});

/** Losses, gradient norms, and the bytes that each step left and had at most. */
async function train(rank: TestRank) {
  const { device, mesh, collective } = rank;
  const model = new Stack({ layers: 3, features: 5, width: 8, hidden: 16 });
  for (const block of model.blocks) fullyShard(block, { mesh });
  fullyShard(model, { mesh });
  await model.to(device);
  const optimizer = new AdamW(model.parameters(), { lr: 0.01, weightDecay: 0.1 });
  optimizer.initState();
  const numbers: number[] = [];
  const bytes: number[] = [];
  for (let step = 0; step < 4; step++) {
    device.backend.memory.resetPeak();
    const loss = await device.scope(async () => {
      const x = device.tensor(
        [0, 1].map((i) => [1, 2, 3, 4, 5].map((j) => Math.sin(rank.rank * 7 + i + j * step))),
      );
      const error = ops.mean(ops.mul(await model.call(x), await model.call(x)));
      await error.backward();
      return await error.item();
    });
    numbers.push(loss, await clipGradNorm(model.parameters(), 0.5));
    optimizer.step();
    optimizer.zeroGrad();
    await collective.barrier().wait();
    const { currentTotal, peakTotal } = device.backend.memory.report();
    bytes.push(currentTotal, peakTotal);
  }
  return { numbers, bytes, calls: rank.calls };
}

describe("training on device memory that the host does not see", () => {
  test.each([1, 2, 4])(
    "gives the same bits on %i ranks as on memory that it sees, within the same bytes at every step",
    async (worldSize) => {
      const seen = await runRanks(worldSize, train);
      const hidden = await runRemote(worldSize, train);
      expect(hidden.map(({ numbers }) => numbers)).toEqual(seen.map(({ numbers }) => numbers));
      expect(hidden.map(({ bytes }) => bytes)).toEqual(seen.map(({ bytes }) => bytes));
      for (const { calls } of hidden) {
        expect(calls).not.toContain("allGather");
        expect(calls).not.toContain("reduceScatter");
        expect(calls.includes("share")).toBe(worldSize > 1);
      }
    },
  );

  test("gives the same numbers on three ranks but for rounding, and the same bits again", async () => {
    const seen = await runRanks(3, train);
    const hidden = await runRemote(3, train);
    for (const [r, { numbers }] of hidden.entries()) {
      for (const [i, value] of numbers.entries()) expect(value).toBeCloseTo(seen[r]!.numbers[i]!, 5);
    }
    expect(await runRemote(3, train)).toEqual(hidden);
  });
});

/** Loaders: batches on a device, epoch after epoch, from any place. */
import { describe, expect, test } from "bun:test";
import { ConfigError, DataLoader, type Device, ops, type Tensor } from "../../../../mod.ts";
import { PreparedDataLoader } from "../../../../plugins/accelerate/data-loader/prepared-data-loader.ts";
import { runRanks } from "../../../support/ranks.ts";

async function alone<T>(body: (device: Device) => Promise<T>): Promise<T> {
  const [result] = await runRanks(1, ({ device }) => body(device));
  return result!;
}

function preparedOn<B>(device: Device, loader: DataLoader<unknown, B>, worldSize = 1, rank = 0) {
  return new PreparedDataLoader(loader, { rank, worldSize, device, splitBatches: false, running: [] });
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

async function valuesOf(batches: AsyncIterable<Tensor>): Promise<number[][]> {
  const values: number[][] = [];
  for await (const batch of batches) values.push(Array.from((await batch.data()) as Float32Array));
  return values;
}

describe("a loader", () => {
  test("makes tensors of numbers, rows and typed arrays, members of objects and tuples, and lists of the rest", async () => {
    await alone(async (device) => {
      const samples = numbers(3).map((i) => ({
        id: Int32Array.of(i, i + 1),
        pair: [[i, -i, 0], `s${i}`] as readonly [readonly number[], string],
        weight: i / 2,
      }));
      for await (const { id, pair, weight } of preparedOn(
        device,
        new DataLoader(samples, { batchSize: 3 }),
      )) {
        const [rows, names] = pair;
        expect([id.dtype, id.shape, rows.shape, weight.shape]).toEqual(["int32", [3, 2], [3, 3], [3]]);
        expect(Array.from((await id.data()) as Int32Array)).toEqual([0, 1, 1, 2, 2, 3]);
        expect(Array.from((await rows.data()) as Float32Array)).toEqual([0, -0, 0, 1, -1, 0, 2, -2, 0]);
        expect(Array.from((await weight.data()) as Float32Array)).toEqual([0, 0.5, 1]);
        expect(names).toEqual(["s0", "s1", "s2"]);
      }
    });
  });

  test("refuses samples of different forms by name", async () => {
    await alone(async (device) => {
      const odd: [readonly unknown[], RegExp][] = [
        [[{ a: 1 }, { b: 1 }], /sample has a and then b/],
        [[{ a: Int32Array.of(1) }, { a: Int32Array.of(1, 2) }], /sample\.a is a Int32Array of 1 and then/],
        [[[1], [1, 2]], /ragged/],
      ];
      for (const [samples, message] of odd) {
        const loader = preparedOn(device, new DataLoader(samples, { batchSize: 2 }) as never);
        await expect(valuesOf(loader as AsyncIterable<Tensor>)).rejects.toThrow(message);
      }
    });
  });

  test("holds a batch until the next, and frees what its collation made besides", async () => {
    await alone(async (device) => {
      const bytes = () => device.backend.memory.report().current.activation;
      const before = bytes();
      const kept = device.tensor([7]);
      const loader = preparedOn(
        device,
        new DataLoader(numbers(6), {
          batchSize: 2,
          collate: (some, on) => {
            on.zeros([1000]);
            return { x: on.tensor(some), kept };
          },
        }),
      );
      let last: Tensor | undefined;
      for await (const { x } of loader) {
        expect(bytes() - before).toBe(3 * 4);
        if (last !== undefined) expect(last.owned).toBe(false);
        using weight = device.ones([1], { requiresGrad: true });
        const loss = ops.sum(ops.mul(weight, weight));
        await loss.backward();
        loss.dispose();
        expect(x.owned).toBe(true);
        last = x;
      }
      expect(kept.owned).toBe(true);
      kept.dispose();
      expect(bytes()).toBe(before);
      for await (const _ of loader) break;
      expect(loader.endOfEpoch).toBe(false);
    });
  });

  test("has another order in each epoch; one that was left early counts as one", async () => {
    await alone(async (device) => {
      const make = () => preparedOn(device, new DataLoader(numbers(8), { batchSize: 4, shuffle: true }));
      const loader = make();
      const epochs = [await valuesOf(loader), await valuesOf(loader)];
      expect(loader.epoch).toBe(2);
      expect(epochs[0]).not.toEqual(epochs[1]!);
      const other = make();
      for await (const batch of other) {
        expect(Array.from((await batch.data()) as Float32Array)).toEqual(epochs[0]![0]!);
        break;
      }
      expect(await valuesOf(other)).toEqual(epochs[1]!);
      other.setEpoch(0);
      expect(await valuesOf(other)).toEqual(epochs[0]!);
    });
  });

  test("goes on in the middle of an epoch, also at another number of ranks", async () => {
    await alone(async (device) => {
      const make = (worldSize = 1, rank = 0) =>
        preparedOn(
          device,
          new DataLoader(numbers(10), { batchSize: 2, shuffle: true, seed: 3 }),
          worldSize,
          rank,
        );
      const whole = await valuesOf(make());
      const loader = make();
      let saved: unknown;
      for await (const _ of loader) {
        saved = loader.values();
        break;
      }
      const again = preparedOn(device, new DataLoader(numbers(10), { batchSize: 2, shuffle: true, seed: 9 }));
      again.loadValues(saved);
      expect(await valuesOf(again)).toEqual(whole.slice(1));
      expect(again.epoch).toBe(1);
      const ranks: number[][][] = [];
      for (const rank of [0, 1]) {
        const other = make(2, rank);
        other.loadValues(saved);
        ranks.push(await valuesOf(other));
      }
      const [first, second] = ranks;
      expect(first!.flatMap((batch, i) => [...batch, ...second![i]!])).toEqual(whole.slice(1).flat());
      expect(await valuesOf(make().from(3))).toEqual(whole.slice(3));
    });
  });

  test("saved with the last batch goes on with the next epoch", async () => {
    await alone(async (device) => {
      const make = () => preparedOn(device, new DataLoader(numbers(4), { batchSize: 2, shuffle: true }));
      const loader = make();
      let saved: unknown;
      for await (const _ of loader) saved = loader.values();
      const again = make();
      again.loadValues(saved);
      expect(await valuesOf(again)).toEqual([]);
      expect(await valuesOf(again)).toEqual(await valuesOf(loader));
    });
  });

  test("refuses what it cannot go on from", async () => {
    await alone(async (device) => {
      const make = (count: number) => preparedOn(device, new DataLoader(numbers(count), { batchSize: 2 }));
      const loader = make(4);
      for (const bad of [null, {}, { epoch: -1, samples: 0, seed: 0, length: 4 }]) {
        expect(() => loader.loadValues(bad)).toThrow(/Loading a DataLoader failed: allowed are epoch/);
      }
      const middle = { epoch: 0, samples: 2, seed: 0, length: 4 };
      expect(() => make(5).loadValues(middle)).toThrow(/after 2 of 4 samples, the dataset has 5 now/);
      make(5).loadValues({ ...middle, samples: 0 });
      expect(() => loader.from(-1)).toThrow(ConfigError);
      expect(() => loader.setEpoch(0.5)).toThrow(ConfigError);
    });
  });

  test("counts its batches", async () => {
    await alone(async (device) => {
      const options = { batchSize: 4 };
      const count = (loader: DataLoader<unknown, unknown>, worldSize = 1) =>
        preparedOn(device, loader, worldSize).length;
      expect(count(new DataLoader(numbers(10), options))).toBe(3);
      expect(count(new DataLoader(numbers(10), { ...options, dropLast: true }))).toBe(2);
      expect(count(new DataLoader(numbers(10), options), 2)).toBe(2);
      expect(count(new DataLoader(numbers(0), options))).toBe(0);
      expect(count(new DataLoader(new Set(numbers(10)), options))).toBeUndefined();
    });
  });

  test("refuses options that make no sense", () => {
    const bad: [() => unknown, string][] = [
      [() => new DataLoader([1], { batchSize: 0 }), "given a batchSize of 0, allowed are integers from 1"],
      [() => new DataLoader([1], { seed: 0.5 }), "given a seed of 0.5, allowed are integers"],
      [() => new DataLoader(new Set([1]), { shuffle: true }), "allowed are datasets with a length"],
      [() => new DataLoader(7 as never), "given a dataset of type number"],
    ];
    for (const [make, message] of bad) {
      expect(make).toThrow(ConfigError);
      expect(make).toThrow(message);
    }
  });
});

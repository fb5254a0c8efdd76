/** Rounds: what ranks take together is the dataset, in its order. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { epochOrder } from "../../../../plugins/accelerate/data-loader/order.ts";
import {
  countRounds,
  indexedRounds,
  type Round,
  type RoundOptions,
  streamedRounds,
} from "../../../../plugins/accelerate/data-loader/rounds.ts";

const identity = (place: number): number => place;

async function all<T>(rounds: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const round of rounds) found.push(round);
  return found;
}

const shapes = fc.record({
  length: fc.integer({ min: 0, max: 30 }),
  worldSize: fc.integer({ min: 1, max: 4 }),
  batchSize: fc.integer({ min: 1, max: 5 }),
  dropLast: fc.boolean(),
  start: fc.integer({ min: 0, max: 32 }),
});

/** Every rank's rounds. */
async function ranks(
  shape: Omit<RoundOptions, "rank"> & { readonly length: number },
  rounds: (options: RoundOptions) => AsyncIterable<Round<number>>,
): Promise<Round<number>[][]> {
  const indices = Array.from({ length: shape.worldSize }, (_, rank) => rank);
  return await Promise.all(indices.map((rank) => all(rounds({ ...shape, rank }))));
}

test("every rank has as many batches of one size, which joined in rank order are the dataset", async () => {
  await fc.assert(
    fc.asyncProperty(shapes, async (shape) => {
      const { length, worldSize, batchSize, dropLast, start } = shape;
      const dataset = { length, get: (index: number) => 100 + index };
      const each = await ranks(shape, (options) => indexedRounds(dataset, identity, options));
      const count = countRounds(length, shape);
      const total = worldSize * batchSize;
      const seen: number[] = [];
      for (let i = 0; i < count; i++) {
        const round = each.map((rounds) => rounds[i]!);
        expect(new Set(round.map(({ items }) => items.length)).size).toBe(1);
        const joined = round.flatMap(({ items }) => items);
        if (worldSize > 1) expect(joined.length).toBe(total);
        const [{ samples, end, last }] = round as [Round<number>];
        seen.push(...joined.slice(0, samples));
        expect(end).toBe(start + seen.length);
        expect(last).toBe(i === count - 1);
        // What fills up comes from the epoch's beginning.
        for (const [j, filler] of joined.slice(samples).entries()) expect(filler).toBe(100 + (j % length));
      }
      expect(each.every((rounds) => rounds.length === count)).toBe(true);
      const rest = Array.from({ length: Math.max(0, length - start) }, (_, i) => 100 + start + i);
      expect(seen).toEqual(dropLast ? rest.slice(0, rest.length - (rest.length % total)) : rest);
    }),
  );
});

test("a dataset that is read gives the rounds of one that is asked", async () => {
  await fc.assert(
    fc.asyncProperty(shapes, fc.boolean(), async (shape, asynchronous) => {
      const samples = Array.from({ length: shape.length }, (_, i) => 100 + i);
      const dataset = { length: shape.length, get: async (index: number) => samples[index]! };
      const stream = asynchronous
        ? async function* () {
            yield* samples;
          }
        : () => samples;
      expect(await ranks(shape, (options) => streamedRounds(stream(), options))).toEqual(
        await ranks(shape, (options) => indexedRounds(dataset, identity, options)),
      );
    }),
  );
});

test("a shuffled epoch has every sample once, in an order of its own that the seed fixes", () => {
  const orderOf = (seed: number, epoch: number) => {
    const order = epochOrder(50, { shuffle: true, seed, epoch });
    return Array.from({ length: 50 }, (_, i) => order(i));
  };
  const all = Array.from({ length: 50 }, (_, i) => i);
  const orders = [orderOf(1, 0), orderOf(1, 1), orderOf(2, 0)];
  for (const order of orders) expect(order.toSorted((a, b) => a - b)).toEqual(all);
  expect(new Set([all, ...orders].map(String)).size).toBe(4);
  expect(orderOf(1, 0)).toEqual(orders[0]!);
  expect(epochOrder(0, { shuffle: true, seed: 1, epoch: 0 })).toBeFunction();
});

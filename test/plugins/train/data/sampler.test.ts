import { expect, test } from "bun:test";
import fc from "fast-check";
import { ConfigError } from "../../../../core/contracts/errors.ts";
import { type WindowOptions, windows } from "../../../../plugins/train/data/sampler.ts";

/** Every byte pair names its place, so a window tells where it starts. */
const CORPUS = Uint8Array.from({ length: 4000 }, (_, i) => (i % 2 === 0 ? (i >> 1) & 255 : i >> 9));
const OPTIONS: WindowOptions = { seed: 1, seqLen: 8, step: 0, globalBatch: 12, rank: 0, worldSize: 1 };

test("the global batch does not depend on the world size", () => {
  for (const step of [0, 1, 1000]) {
    const whole = windows(CORPUS, { ...OPTIONS, step });
    expect(whole).toHaveLength(12 * 9);
    for (const worldSize of [2, 3, 4, 6, 12]) {
      const parts = Array.from({ length: worldSize }, (_, rank) =>
        windows(CORPUS, { ...OPTIONS, step, rank, worldSize }),
      );
      expect(parts.flatMap((part) => [...part])).toEqual([...whole]);
    }
  }
});

test("every row is a window of the corpus, wherever it starts", () => {
  const text = Buffer.from(CORPUS);
  fc.assert(
    fc.property(fc.integer(), fc.nat(2 ** 20), fc.integer({ min: 1, max: 40 }), (seed, step, seqLen) => {
      const tokens = windows(CORPUS, { ...OPTIONS, seed, step, seqLen, globalBatch: 2 });
      for (const row of [0, 1]) {
        const bytes = Buffer.from(tokens.subarray(row * (seqLen + 1), (row + 1) * (seqLen + 1)));
        expect(text.includes(bytes)).toBe(true);
      }
    }),
  );
});

test("every start is reached, the first and the last included", () => {
  const corpus = Uint8Array.of(10, 11, 12, 13, 14);
  const tokens = windows(corpus, { ...OPTIONS, seqLen: 2, globalBatch: 300 });
  const starts = new Set(Array.from({ length: 300 }, (_, row) => tokens[row * 3]!));
  expect([...starts].sort()).toEqual([10, 11, 12]);
});

test("seeds, steps and rows draw different windows; the same draw is the same", () => {
  const draw = (options: Partial<WindowOptions>) => windows(CORPUS, { ...OPTIONS, ...options }).join();
  expect(draw({})).toBe(draw({}));
  expect(new Set([draw({}), draw({ seed: 2 }), draw({ step: 1 })]).size).toBe(3);
  const rows = windows(CORPUS, OPTIONS);
  expect(new Set(Array.from({ length: 12 }, (_, r) => rows.subarray(r * 9, r * 9 + 9).join())).size).toBe(12);
});

test("a corpus that is too short and a batch that cannot be shared are config errors", () => {
  const short = () => windows(CORPUS.subarray(0, 8), OPTIONS);
  expect(short).toThrow(ConfigError);
  expect(short).toThrow('given "--seq-len" 8 and 8 bytes of text, allowed is up to 7');
  expect(windows(CORPUS.subarray(0, 9), OPTIONS)).toHaveLength(12 * 9);
  expect(() => windows(CORPUS, { ...OPTIONS, worldSize: 5 })).toThrow("given 12 rows over 5 ranks");
});

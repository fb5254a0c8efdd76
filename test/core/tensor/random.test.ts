import { expect, test } from "bun:test";
import fc from "fast-check";
import { randomNormal, randomUniform, randomWords, streamKey } from "../../../core/tensor/random.ts";

/** Philox4x32-10 by the paper, in big integers. */
function philox(counter: readonly bigint[], key: readonly bigint[]): number[] {
  const mask = 0xffffffffn;
  let [x0, x1, x2, x3] = counter as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * x0;
    const p1 = 0xcd9e8d57n * x2;
    [x0, x1, x2, x3] = [(p1 >> 32n) ^ x1 ^ k0, p1 & mask, (p0 >> 32n) ^ x3 ^ k1, p0 & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [x0, x1, x2, x3].map(Number);
}

test("the oracle gives the known answers of Random123", () => {
  expect(philox([0n, 0n, 0n, 0n], [0n, 0n])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  const ones = 0xffffffffn;
  expect(philox([ones, ones, ones, ones], [ones, ones])).toEqual([
    0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
  ]);
  const digits = [0x243f6a88n, 0x85a308d3n, 0x13198a2en, 0x03707344n];
  const want = [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1];
  expect(philox(digits, [0xa4093822n, 0x299f31d0n])).toEqual(want);
});

test("element i is word i % 4 of the block at counter floor(i / 4), for any start", () => {
  fc.assert(
    fc.property(
      fc.nat(2 ** 32 - 1),
      fc.nat(2 ** 32 - 1),
      fc.oneof(fc.nat(40), fc.integer({ min: 0, max: 2 ** 52 })),
      fc.nat(23),
      (high, low, start, length) => {
        const out = new Uint32Array(length);
        randomWords({ high, low }, start, out);
        for (const [i, word] of out.entries()) {
          const element = start + i;
          const counter = BigInt(Math.floor(element / 4));
          const block = philox([counter & 0xffffffffn, counter >> 32n, 0n, 0n], [BigInt(low), BigInt(high)]);
          expect(word).toBe(block[element % 4]!);
        }
      },
    ),
    { numRuns: 60 },
  );
});

test("any region of a stream, generated alone, equals that region of the whole", () => {
  const key = streamKey(7, "region");
  const whole = { uniform: new Float32Array(5000), normal: new Float32Array(5000) };
  randomUniform(key, 0, whole.uniform);
  randomNormal(key, 0, whole.normal);
  fc.assert(
    fc.property(fc.nat(4999), fc.nat(2500), (start, length) => {
      const part = new Float32Array(Math.min(length, 5000 - start));
      randomUniform(key, start, part);
      expect(part).toEqual(whole.uniform.subarray(start, start + part.length));
      randomNormal(key, start, part);
      expect(part).toEqual(whole.normal.subarray(start, start + part.length));
    }),
    { numRuns: 100 },
  );
});

test("uniform numbers lie in [0, 1), also as float32, with the moments of the distribution", () => {
  const out = new Float32Array(200_000);
  randomUniform(streamKey(1), 0, out);
  let [sum, squares] = [0, 0];
  for (const u of out) {
    if (!(u >= 0 && u < 1)) throw new RangeError(`uniform number ${u}`);
    sum += u;
    squares += u * u;
  }
  expect(sum / out.length).toBeCloseTo(1 / 2, 2);
  expect(squares / out.length).toBeCloseTo(1 / 3, 2);
});

test("normal numbers are Box-Muller of the stream's words", () => {
  const key = streamKey(3, "normal");
  const words = new Uint32Array(4000);
  randomWords(key, 0, words);
  const out = new Float64Array(4000);
  randomNormal(key, 0, out);
  for (let i = 0; i < out.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((words[i]! + 0.5) / 2 ** 32));
    const word = words[i + 1]!;
    const angle = ((word >>> 30) + ((word & 0x3fffffff) + 0.5) / 2 ** 30 - 0.5) * (Math.PI / 2);
    expect(Math.abs(out[i]! - radius * Math.cos(angle))).toBeLessThan(1e-11);
    expect(Math.abs(out[i + 1]! - radius * Math.sin(angle))).toBeLessThan(1e-11);
  }
});

test("normal numbers have the moments and tails of the distribution", () => {
  const out = new Float32Array(400_000);
  randomNormal(streamKey(11), 0, out);
  const moments = [0, 0, 0, 0];
  let beyond = 0;
  for (const x of out) {
    for (const [p] of moments.entries()) moments[p]! += x ** (p + 1) / out.length;
    if (Math.abs(x) > 2) beyond++;
  }
  expect(Math.abs(moments[0]!)).toBeLessThan(0.01);
  expect(Math.abs(moments[1]! - 1)).toBeLessThan(0.01);
  expect(Math.abs(moments[2]!)).toBeLessThan(0.03);
  expect(Math.abs(moments[3]! - 3)).toBeLessThan(0.06);
  expect(Math.abs(beyond / out.length - 0.0455)).toBeLessThan(0.002);
});

test("keys are stable, and differ for different seeds, names, groupings and kinds", () => {
  expect(streamKey(42, "init", "wte")).toEqual(streamKey(42, "init", "wte"));
  const keys = [
    streamKey(0),
    streamKey(1),
    streamKey(1, "a", "b"),
    streamKey(1, "ab"),
    streamKey(1, "b", "a"),
    streamKey(1, "a", "b", ""),
    streamKey(1, 2),
    streamKey(1, "2"),
    streamKey(12),
  ].map(({ high, low }) => `${high},${low}`);
  expect(new Set(keys).size).toBe(keys.length);
  const many = Array.from({ length: 20_000 }, (_, i) => streamKey(i >> 4, "layer", i & 15));
  expect(new Set(many.map(({ high, low }) => `${high},${low}`)).size).toBe(many.length);
  expect(new Set(many.map(({ low }) => low)).size).toBeGreaterThan(19_990);
});

test("the stream of a seed never changes", () => {
  const out = new Float32Array(3);
  randomNormal(streamKey(1234, "golden"), 5, out);
  expect([streamKey(1234, "golden"), ...out]).toMatchInlineSnapshot(`
    [
      {
        "high": 4016484994,
        "low": 3509926744,
      },
      0.21662791073322296,
      -0.3110699951648712,
      0.8395841121673584,
    ]
  `);
});

/**
 * 16-bit floats in WebAssembly against the plain twin and JavaScript's own rounding, over every pattern.
 */
import { describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { buildHalf } from "../../../../core/runtime/half/build.ts";
import { loadHalf } from "../../../../core/runtime/half/module.ts";
import {
  fromBfloat16,
  type HalfDType,
  plainConverter,
  toBfloat16,
} from "../../../../core/runtime/half/plain.ts";

const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared: true });
const plain = plainConverter(() => memory.buffer);
const fast = loadHalf(memory)!;
const DTYPES: readonly HalfDType[] = ["float16", "bfloat16"];
/** Byte addresses of two runs of 16-bit words and one of float32. */
const [HALVES, OTHERS, FLOATS] = [0, 2 ** 18, 2 ** 19];
const PATTERNS = 65536;

const words = (address: number, length: number) => new Uint16Array(memory.buffer, address, length);
const floats = (address: number, length: number) => new Float32Array(memory.buffer, address, length);

/** The words with every NaN the same: which one comes out is not laid down. */
function canonical(dtype: HalfDType, bits: Uint16Array): number[] {
  const infinity = dtype === "float16" ? 0x7c00 : 0x7f80;
  return Array.from(bits, (word) => ((word & 0x7fff) > infinity ? -1 : word));
}

const numberOf = (dtype: HalfDType, bits: number): number =>
  dtype === "float16" ? new Float16Array(Uint16Array.of(bits).buffer)[0]! : fromBfloat16(bits);

/** Sets `count` float32 and narrows them with both. */
function narrowed(dtype: HalfDType, bits: Uint32Array): [number[], number[]] {
  new Uint32Array(memory.buffer, FLOATS, bits.length).set(bits);
  plain.narrowRows(dtype, FLOATS, 0, HALVES, 0, 1, bits.length);
  fast.narrowRows(dtype, FLOATS, 0, OTHERS, 0, 1, bits.length);
  return [canonical(dtype, words(HALVES, bits.length)), canonical(dtype, words(OTHERS, bits.length))];
}

describe.each(DTYPES)("%s", (dtype) => {
  test("every pattern widens to its value, in both twins, and narrows back to itself", () => {
    const every = words(HALVES, PATTERNS);
    for (let i = 0; i < PATTERNS; i++) every[i] = i;
    for (const converter of [plain, fast]) {
      floats(FLOATS, PATTERNS).fill(0);
      converter.widenRows(dtype, HALVES, 0, FLOATS, 0, 1, PATTERNS);
      const wide = floats(FLOATS, PATTERNS);
      for (let i = 0; i < PATTERNS; i++) {
        if (!Object.is(wide[i], numberOf(dtype, i))) expect.unreachable(`${i} became ${wide[i]}`);
      }
      words(OTHERS, PATTERNS).fill(0);
      converter.narrowRows(dtype, FLOATS, 0, OTHERS, 0, 1, PATTERNS);
      expect(canonical(dtype, words(OTHERS, PATTERNS))).toEqual(canonical(dtype, every));
    }
  });

  test("what lies between two neighbours goes to the nearer, halfway to the even one", () => {
    const infinity = dtype === "float16" ? 0x7c00 : 0x7f80;
    const one = new Float32Array(1);
    const oneBits = new Uint32Array(one.buffer);
    for (let low = 0; low < infinity; low++) {
      const next =
        low + 1 === infinity ? (dtype === "float16" ? 2 ** 16 : 2 ** 128) : numberOf(dtype, low + 1);
      // Of bfloat16's smallest the middle is one of float32's subnormals, of its largest it is still a float32.
      one[0] = numberOf(dtype, low) / 2 + next / 2;
      const middle = oneBits[0]!;
      const cases = new Uint32Array([middle - 1, middle, middle + 1].flatMap((b) => [b, b + 2 ** 31]));
      const even = low % 2 === 0 ? low : low + 1;
      const want = [low, even, low + 1].flatMap((b) => [b, b | 0x8000]);
      const [a, b] = narrowed(dtype, cases);
      if (a.join() !== want.join() || b.join() !== want.join()) {
        expect.unreachable(`around ${one[0]}: the twins gave ${a} and ${b}, wanted ${want}`);
      }
    }
  });

  test("the twins agree on any float32", () => {
    fc.assert(
      fc.property(fc.uint32Array({ minLength: 1, maxLength: 67 }), (bits) => {
        const [a, b] = narrowed(dtype, bits);
        expect(b).toEqual(a);
      }),
      { numRuns: 500 },
    );
  });

  test("rows with gaps are converted alone, whatever their width", () => {
    const cases = fc.record({
      rows: fc.nat(5),
      columns: fc.nat(20),
      gap: fc.nat(3),
      otherGap: fc.nat(3),
      seed: fc.nat(60000),
    });
    fc.assert(
      fc.property(cases, ({ rows, columns, gap, otherGap, seed }) => {
        const [half, wide] = [columns + gap, columns + otherGap];
        const results = [plain, fast].map((converter) => {
          for (let i = 0; i < 200; i++) words(HALVES + 2, 200)[i] = (seed + 37 * i) & 0x3fff;
          floats(FLOATS + 4, 200).fill(7);
          converter.widenRows(dtype, HALVES + 2, half, FLOATS + 4, wide, rows, columns);
          const widened = [...floats(FLOATS + 4, 200)];
          words(OTHERS + 2, 200).fill(9);
          converter.narrowRows(dtype, FLOATS + 4, wide, OTHERS + 2, half, rows, columns);
          return { widened, narrow: [...words(OTHERS + 2, 200)] };
        });
        expect(results[1]).toEqual(results[0]!);
        for (let row = 0; row < rows; row++) {
          for (let i = 0; i < half; i++) {
            const word = results[0]!.narrow[row * half + i];
            expect(word).toBe(i < columns ? words(HALVES + 2, 200)[row * half + i]! : 9);
          }
        }
      }),
    );
  });
});

test("a number becomes the nearest bfloat16, and its bits the number again", () => {
  for (const value of [0, -0, 1, -2.5, 3.3895313892515355e38, Number.POSITIVE_INFINITY]) {
    expect(fromBfloat16(toBfloat16(value))).toBe(value);
  }
  expect(fromBfloat16(toBfloat16(1.001))).toBe(1);
  expect(fromBfloat16(toBfloat16(Number.NaN))).toBeNaN();
});

test("the committed module is what its source gives", async () => {
  const committed = new URL("../../../../core/runtime/half/module.generated.ts", import.meta.url);
  expect((await buildHalf()) === (await readFile(committed, "utf8"))).toBe(true);
}, 60_000);

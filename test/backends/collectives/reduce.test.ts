import { expect, test } from "bun:test";
import fc from "fast-check";
import { reduceInto } from "../../../backends/collectives/reduce.ts";
import { newHostArray } from "../../../core/contracts/dtype.ts";
import { inputOf, reduced, SUITE_DTYPES, SUITE_OPS } from "../../conformance/collective/oracle.ts";

const float32 = (bits: number): number => new Float32Array(Uint32Array.of(bits).buffer)[0]!;

test("reductions equal the element-by-element oracle for every dtype, op and number of ranks", () => {
  const cases = fc.record({
    dtype: fc.constantFrom(...SUITE_DTYPES),
    op: fc.constantFrom(...SUITE_OPS),
    ranks: fc.integer({ min: 1, max: 6 }),
    length: fc.nat(60),
    seed: fc.nat(),
  });
  fc.assert(
    fc.property(cases, ({ dtype, op, ranks, length, seed }) => {
      const inputs = Array.from({ length: ranks }, (_, rank) => inputOf(dtype, length, seed, rank));
      const output = newHostArray(dtype, length);
      reduceInto(output, inputs, op, dtype);
      expect(output).toEqual(reduced(inputs, op, dtype));
    }),
  );
});

test.each(["float32", "bfloat16", "float64"] as const)("%s tiles join without a seam", (dtype) => {
  const inputs = [0, 1, 2].map((rank) => inputOf(dtype, 2 * 16384 + 3, 5, rank));
  const output = newHostArray(dtype, inputs[0]!.length);
  reduceInto(output, inputs, "avg", dtype);
  expect(output).toEqual(reduced(inputs, "avg", dtype));
});

test.each(SUITE_DTYPES.map((dtype) => [dtype] as const))(
  "%s may be reduced into any of its inputs",
  (dtype) => {
    for (const target of [0, 1, 2]) {
      const inputs = [0, 1, 2].map((rank) => inputOf(dtype, 20, 3, rank));
      const expected = reduced(inputs, "sum", dtype);
      reduceInto(inputs[target]!, inputs, "sum", dtype);
      expect(inputs[target]).toEqual(expected);
    }
  },
);

test("bfloat16 rounds to nearest, ties to even, and keeps infinity and NaN", () => {
  const zero = new Uint16Array(6);
  // 1 + 2^-8 lies halfway between 1 and the next bfloat16; 1 + 3 * 2^-8 halfway before an even one.
  const one = Uint16Array.of(0x3f80, 0x3f81, 0x7f80, 0xff80, 0x7fc0, 0x7f7f);
  const small = Uint16Array.of(0x3b80, 0x3b80, 0, 0, 0, 0x7f7f);
  const output = new Uint16Array(6);
  reduceInto(output, [one, small, zero], "sum", "bfloat16");
  expect([...output.subarray(0, 4)]).toEqual([0x3f80, 0x3f82, 0x7f80, 0xff80]);
  expect(float32(output[4]! << 16)).toBeNaN();
  expect(output[5]).toBe(0x7f80);
});

test("16-bit floats round once: small terms add up before they are lost", () => {
  const ranks = [2048, 1, 1, 1, 1];
  const output = new Float16Array(1);
  reduceInto(
    output,
    ranks.map((value) => Float16Array.of(value)),
    "sum",
    "float16",
  );
  expect(output[0]).toBe(2052);
});

test("float16 is summed the same from raw words", () => {
  const inputs = [1.5, 2.25].map((value) => Float16Array.of(value, -value));
  const words = inputs.map((input) => new Uint16Array(input.buffer));
  const output = new Uint16Array(2);
  reduceInto(output, words, "sum", "float16");
  expect([...new Float16Array(output.buffer)]).toEqual([3.75, -3.75]);
});

test("a maximum with NaN is NaN, on whichever rank", () => {
  for (const order of [0, 1]) {
    const inputs = [Float32Array.of(Number.NaN), Float32Array.of(1)];
    const output = new Float32Array(1);
    reduceInto(output, order === 0 ? inputs : inputs.reverse(), "max", "float32");
    expect(output[0]).toBeNaN();
  }
});

test("the sum of bools is their union", () => {
  const output = new Uint8Array(3);
  reduceInto(output, [Uint8Array.of(0, 1, 1), Uint8Array.of(0, 0, 1)], "sum", "bool");
  expect([...output]).toEqual([0, 1, 1]);
});

/** Reductions of floats in WebAssembly against their plain twin: every 16-bit pattern, seams of tiles, many ranks. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { plainTile, reduceFloats } from "../../../backends/collectives/reduce-float.ts";
import type { ReductionOp } from "../../../core/contracts/collective.ts";
import type { HalfDType } from "../../../core/runtime/half/plain.ts";

const DTYPES: readonly HalfDType[] = ["float16", "bfloat16"];
const OPS: readonly ReductionOp[] = ["sum", "avg", "max"];

/** Fails unless both twins give the same; which NaN comes out is not laid down. */
function expectTwins(dtype: HalfDType, inputs: readonly Uint16Array[], op: ReductionOp): void {
  const infinity = dtype === "float16" ? 0x7c00 : 0x7f80;
  const [fast, plain] = [undefined, plainTile].map((tile) => {
    const output = new Uint16Array(inputs[0]!.length);
    reduceFloats(dtype, output, inputs, op, tile);
    return output.map((word) => ((word & 0x7fff) > infinity ? 0x7fff : word));
  });
  expect(Buffer.from(fast!.buffer).equals(Buffer.from(plain!.buffer))).toBe(true);
}

test("the twins agree on every pattern beside random others, for every dtype and operation", () => {
  const every = Uint16Array.from({ length: 65536 }, (_, i) => i);
  for (const dtype of DTYPES) {
    for (const op of OPS) {
      for (const factor of [1, 40503, 30011]) {
        expectTwins(dtype, [every, every.map((word) => Math.imul(word, factor) + 77)], op);
      }
    }
  }
});

test("the twins agree on any number of ranks and any length", () => {
  const cases = fc.record({
    dtype: fc.constantFrom(...DTYPES),
    op: fc.constantFrom(...OPS),
    ranks: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.constantFrom(16, 17, 300, 900)),
    length: fc.oneof(fc.nat(40), fc.constantFrom(511, 512, 513, 16383, 16384, 16385)),
    seed: fc.nat(65535),
  });
  fc.assert(
    fc.property(cases, ({ dtype, op, ranks, length, seed }) => {
      const inputs = Array.from({ length: ranks }, (_, rank) =>
        Uint16Array.from({ length: Math.min(length, ranks > 6 ? 1100 : length) }, (_, i) =>
          Math.imul(seed + 31 * i + 7 * rank, 40503),
        ),
      );
      expectTwins(dtype, inputs, op);
    }),
    { numRuns: 60 },
  );
});

test("the twins agree on float32, rounding included", () => {
  const cases = fc.record({
    op: fc.constantFrom(...OPS),
    ranks: fc.integer({ min: 1, max: 5 }),
    length: fc.oneof(fc.nat(9), fc.constantFrom(16383, 16385)),
    seed: fc.nat(65535),
  });
  fc.assert(
    fc.property(cases, ({ op, ranks, length, seed }) => {
      const inputs = Array.from({ length: ranks }, (_, rank) =>
        Float32Array.from({ length }, (_, i) => Math.sin(seed + i + rank) * 2 ** ((i * 7 + rank) % 60)),
      );
      const [fast, plain] = [undefined, plainTile].map((tile) => {
        const output = new Float32Array(length);
        reduceFloats("float32", output, inputs, op, tile);
        return output;
      });
      expect(Buffer.from(fast!.buffer).equals(Buffer.from(plain!.buffer))).toBe(true);
    }),
    { numRuns: 40 },
  );
});

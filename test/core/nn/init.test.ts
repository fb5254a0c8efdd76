import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { constant, forEachRun, normal, uniform } from "../../../core/nn/init.ts";
import { Parameter } from "../../../core/nn/parameter.ts";
import { numelOf, stridesOf } from "../../../core/tensor/shape.ts";
import { shapes } from "../tensor/gradcheck.ts";

const boxes: fc.Arbitrary<{ shape: number[]; box: Box }> = shapes.chain((shape) =>
  fc.tuple(...shape.map((extent) => fc.tuple(fc.nat(extent), fc.nat(extent)))).map((ends) => ({
    shape,
    box: { offsets: ends.map(([a, b]) => Math.min(a, b)), sizes: ends.map(([a, b]) => Math.abs(a - b)) },
  })),
);

/** Where each element of the box lies in the whole tensor, in the box's order. */
function positions(shape: readonly number[], box: Box): number[] {
  const strides = stridesOf(shape);
  const own = stridesOf(box.sizes);
  return Array.from({ length: numelOf(box.sizes) }, (_, i) =>
    box.sizes.reduce(
      (sum, size, d) => sum + (box.offsets[d]! + (Math.floor(i / own[d]!) % size)) * strides[d]!,
      0,
    ),
  );
}

describe("initialisers", () => {
  test("runs of a box cover its elements in order, each once", () => {
    fc.assert(
      fc.property(boxes, ({ shape, box }) => {
        const found: number[] = [];
        forEachRun(shape, box, (start, offset, length) => {
          expect(offset).toBe(found.length);
          for (let i = 0; i < length; i++) found.push(start + i);
        });
        expect(found).toEqual(positions(shape, box));
      }),
    );
  });

  test("any box of a parameter begins with the same values as in the whole, whoever asks", async () => {
    await fc.assert(
      fc.asyncProperty(
        boxes,
        fc.constantFrom(normal(0.5, 1), uniform(0.3), constant(2)),
        async (cut, initializer) => {
          const parameter = new Parameter(cut.shape, initializer);
          parameter.name = "a.b";
          const whole = await parameter.initial(3, { offsets: cut.shape.map(() => 0), sizes: cut.shape });
          const part = await parameter.initial(3, cut.box);
          expect(Array.from(part, Number)).toEqual(
            positions(cut.shape, cut.box).map((i) => Number(whole[i])),
          );
        },
      ),
      { numRuns: 50 },
    );
  });

  test("values depend on the seed and the name", async () => {
    const box = { offsets: [0], sizes: [6] };
    const draw = (name: string, seed: number) => {
      const parameter = new Parameter([6], normal(1));
      parameter.name = name;
      return parameter.initial(seed, box);
    };
    const first = await draw("w", 1);
    expect(await draw("w", 1)).toEqual(first);
    expect(await draw("w", 2)).not.toEqual(first);
    expect(await draw("v", 1)).not.toEqual(first);
  });

  test("random values in a dtype that cannot hold them are refused by the parameter's name", async () => {
    const parameter = new Parameter([2], normal(1), { dtype: "int32" });
    parameter.name = "w";
    await expect(parameter.initial(0, { offsets: [0], sizes: [2] })).rejects.toThrow(ShapeError);
  });
});

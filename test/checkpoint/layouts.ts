/**
 * Random tensors and random ways to cut them, for property tests.
 *
 * @module
 */
import fc from "fast-check";
import { STORED_DTYPES, type StoredDType } from "../../core/contracts/dtype.ts";
import type { Box } from "../../core/contracts/shard.ts";
import { type FullTensor, type Layout, patternTensor } from "./states.ts";

/** A few tensors of any dtype, with scalars and zero extents among them. */
export const tensorsArbitrary: fc.Arbitrary<readonly FullTensor[]> = fc
  .array(
    fc.record({
      dtype: fc.constantFrom(...(Object.keys(STORED_DTYPES) as StoredDType[])),
      shape: fc.array(fc.integer({ min: 0, max: 7 }), { maxLength: 4 }),
    }),
    { minLength: 1, maxLength: 5 },
  )
  .map((specs) => specs.map(({ dtype, shape }, i) => patternTensor(`model.t${i}`, dtype, shape)));

/** A layout in which every rank's boxes are disjoint and all together cover each tensor, decided by `seed`. */
export function randomLayout(worldSize: number, seed: number): Layout {
  return (tensor, rank) => {
    const random = generator(seed ^ hash(tensor.name));
    const boxes = cut({ offsets: tensor.shape.map(() => 0), sizes: tensor.shape }, random, 4);
    return boxes.filter(() => random(worldSize) === rank);
  };
}

/** Splits a box at random, some pieces empty: kd-like, so that no common grid exists. */
export function cut(box: Box, random: (below: number) => number, depth: number): Box[] {
  if (depth === 0 || box.sizes.length === 0 || random(5) === 0) return [box];
  const axis = random(box.sizes.length);
  const at = random(box.sizes[axis]! + 1);
  const left = { offsets: box.offsets, sizes: box.sizes.with(axis, at) };
  const right = {
    offsets: box.offsets.with(axis, box.offsets[axis]! + at),
    sizes: box.sizes.with(axis, box.sizes[axis]! - at),
  };
  return [...cut(left, random, depth - 1), ...cut(right, random, depth - 1)];
}

/** Integers below a bound, repeatable. */
export function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return ((state ^ (state >>> 13)) >>> 0) % below;
  };
}

function hash(text: string): number {
  return Array.from(text).reduce(
    (sum, char) => Math.imul(sum ^ char.codePointAt(0)!, 0x01000193),
    0x811c9dc5,
  );
}

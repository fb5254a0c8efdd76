/** What a run gave beside what it should have given. */
import { expect } from "bun:test";
import type { Trained } from "./programs/training.ts";

/** Named lists of numbers. */
type Named = Readonly<Record<string, readonly number[]>>;

/** Numbers agree within `tolerance`, absolutely or relative to the expected one. */
export function expectClose(
  actual: readonly number[],
  expected: readonly number[],
  what: string,
  tolerance = 2e-5,
): void {
  expect(actual.length, what).toBe(expected.length);
  const off = actual.findIndex(
    (value, i) => !(Math.abs(value - expected[i]!) <= tolerance * Math.max(1, Math.abs(expected[i]!))),
  );
  if (off >= 0) expect(actual[off], `${what}, element ${off}`).toBeCloseTo(expected[off]!, 7);
}

/** Names and numbers agree. */
export function expectCloseNamed(actual: Named, expected: Named, what: string, tolerance?: number): void {
  expect(Object.keys(actual), what).toEqual(Object.keys(expected));
  for (const [name, values] of Object.entries(actual)) {
    expectClose(values, expected[name]!, `${what}, ${name}`, tolerance);
  }
}

/** Every rank's losses, gradients and weights are the reference's: in every bit if `exact`. */
export function expectTrainedAlike(
  results: readonly Trained[],
  reference: Trained,
  what: string,
  exact = false,
): void {
  for (const { losses, gradients, weights, states, left } of results) {
    if (exact) {
      const { losses: l, gradients: g, weights: w } = reference;
      expect({ losses, gradients, weights }, what).toEqual({ losses: l, gradients: g, weights: w });
    } else {
      expectClose(losses, reference.losses, `${what}, losses`);
      expectCloseNamed(gradients, reference.gradients, `${what}, gradients`);
      expectCloseNamed(weights, reference.weights, `${what}, weights`);
    }
    expect(new Set(states).size, `${what}, states of groups after backward`).toBeLessThanOrEqual(1);
    for (const state of states) expect(state, what).toBe("sharded");
    expect(left, `${what}, bytes left`).toBe(0);
  }
}

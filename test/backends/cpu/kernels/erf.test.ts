import { expect, test } from "bun:test";
import { erf } from "../../../../backends/cpu/kernels/erf.ts";

test("erf is within 1e-15 of tabulated values and odd", () => {
  const table = [
    [0, 0],
    [0.1, 0.1124629160182849],
    [0.5, 0.5204998778130465],
    [0.9, 0.7969082124228322],
    [1, 0.8427007929497149],
    [1.5, 0.9661051464753108],
    [2, 0.9953222650189527],
    [3, 0.9999779095030014],
    [4, 0.9999999845827421],
    [5, 0.9999999999984626],
    [7, 1],
  ] as const;
  for (const [x, want] of table) {
    expect(Math.abs(erf(x) - want)).toBeLessThan(1e-15);
    expect(erf(-x) + erf(x)).toBe(0);
  }
  expect(erf(Number.NaN)).toBeNaN();
  expect(erf(Number.POSITIVE_INFINITY)).toBe(1);
});

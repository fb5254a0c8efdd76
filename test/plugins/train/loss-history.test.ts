import { expect, test } from "bun:test";
import fc from "fast-check";
import { createLossHistory, MOST_POINTS } from "../../../plugins/train/loss-history.ts";

test("keeps every loss of a short run, and evenly spaced ones of a long run", () => {
  const history = createLossHistory();
  for (let step = 1; step <= MOST_POINTS; step++) history.add(step, step / 2);
  expect(history.points().length).toBe(MOST_POINTS);
  for (let step = MOST_POINTS + 1; step <= 10 * MOST_POINTS; step++) history.add(step, step / 2);
  const points = history.points();
  expect(points.length).toBeLessThanOrEqual(MOST_POINTS);
  expect(points.length).toBeGreaterThan(MOST_POINTS / 2);
  const [first] = points[0]!;
  expect(points).toEqual(points.map((_, i) => [(i + 1) * first, ((i + 1) * first) / 2]));
});

test("goes on from a checkpoint as if there had been none", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 0, max: 5000 }), (before, after) => {
      const whole = createLossHistory();
      const first = createLossHistory();
      const second = createLossHistory();
      for (let step = 1; step <= before; step++) {
        whole.add(step, 1 / step);
        first.add(step, 1 / step);
      }
      second.restore(first.points(), before);
      for (let step = before + 1; step <= before + after; step++) {
        whole.add(step, 1 / step);
        second.add(step, 1 / step);
      }
      expect(second.points()).toEqual(whole.points());
    }),
    { numRuns: 30 },
  );
});

test("takes nothing up that is no loss", () => {
  const history = createLossHistory();
  history.add(1, Number.NaN);
  for (const saved of [undefined, null, "x", { 0: 1 }, [1, [2], ["3", 4], [5, null], [9, 1]]])
    history.restore(saved, 8);
  expect(history.points()).toEqual([]);
});

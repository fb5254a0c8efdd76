import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { LRScheduler, warmupConstant, warmupCosine, warmupLinear } from "../../../core/optim/mod.ts";

const STEPS = [0, 1, 2, 3, 4, 6, 8, 10, 12, 100];

describe("schedules", () => {
  test("give the factors of transformers.optimization", () => {
    const warmup = [0, 0.25, 0.5, 0.75];
    expect(STEPS.map(warmupConstant({ warmupSteps: 4 }))).toEqual([...warmup, 1, 1, 1, 1, 1, 1]);
    expect(STEPS.map(warmupLinear({ warmupSteps: 4, totalSteps: 12 }))).toEqual([
      ...warmup,
      1,
      0.75,
      0.5,
      0.25,
      0,
      0,
    ]);
    const half = Math.SQRT1_2 / 2;
    const cosine = [...warmup, 1, 0.5 + half, 0.5, 0.5 - half, 0, 0];
    for (const [i, factor] of STEPS.map(warmupCosine({ warmupSteps: 4, totalSteps: 12 })).entries()) {
      expect(factor).toBeCloseTo(cosine[i]!, 14);
    }
  });

  test("end at minRatio and stay there", () => {
    for (const make of [warmupLinear, warmupCosine]) {
      const schedule = make({ totalSteps: 10, minRatio: 0.1 });
      expect(schedule(0)).toBe(1);
      expect(schedule(5)).toBeCloseTo(0.55, 14);
      expect(schedule(10)).toBeCloseTo(0.1, 14);
      expect(schedule(1000)).toBeCloseTo(0.1, 14);
    }
  });

  test("without warmup begin at 1, also when there is nothing to decay over", () => {
    expect(warmupConstant()(0)).toBe(1);
    expect(warmupCosine({ totalSteps: 0 })(0)).toBe(1);
    expect(warmupCosine({ warmupSteps: 2, totalSteps: 2 })(2)).toBe(1);
  });

  test("refuse values out of range", () => {
    expect(() => warmupConstant({ warmupSteps: -1 })).toThrow(ConfigError);
    expect(() => warmupCosine({ warmupSteps: 5, totalSteps: 4 })).toThrow("warmupSteps 5 and totalSteps 4");
    expect(() => warmupCosine({ totalSteps: 1.5 })).toThrow(ConfigError);
    expect(() => warmupLinear({ totalSteps: 4, minRatio: 2 })).toThrow("minRatio 2");
  });
});

describe("LRScheduler", () => {
  const make = () => {
    const groups = [{ lr: 1 }, { lr: 10 }];
    return {
      groups,
      scheduler: new LRScheduler({ groups }, warmupLinear({ warmupSteps: 2, totalSteps: 4 })),
    };
  };

  test("sets every group's rate to its first one times the factor, from the first update on", () => {
    const { scheduler } = make();
    const seen = [scheduler.lastLR];
    for (let step = 0; step < 4; step++) {
      scheduler.step();
      seen.push(scheduler.lastLR);
    }
    expect(seen).toEqual([
      [0, 0],
      [0.5, 5],
      [1, 10],
      [0.5, 5],
      [0, 0],
    ]);
  });

  test("continues from saved values", () => {
    const first = make();
    for (let step = 0; step < 3; step++) first.scheduler.step();
    const second = make();
    second.scheduler.loadValues(JSON.parse(JSON.stringify(first.scheduler.values())));
    expect(second.groups).toEqual(first.groups);
  });

  test("refuses values that do not fit", () => {
    const { scheduler } = make();
    for (const bad of [undefined, {}, { step: -1, baseLRs: [1, 1] }, { step: 1, baseLRs: [1] }]) {
      expect(() => scheduler.loadValues(bad)).toThrow(ConfigError);
    }
  });
});

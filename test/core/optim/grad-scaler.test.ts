import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { GradScaler } from "../../../core/optim/mod.ts";

describe("GradScaler", () => {
  test("halves after every bad step and doubles after a run of good ones", () => {
    const scaler = new GradScaler({ initScale: 16, growthInterval: 2 });
    const scales = [true, true, false, true, false, true, true, true].map((finite) => {
      scaler.update(finite);
      return scaler.scale;
    });
    expect(scales).toEqual([16, 32, 16, 16, 8, 8, 16, 16]);
  });

  test("goes on where saved values left it", () => {
    const scaler = new GradScaler({ initScale: 8, growthInterval: 3 });
    scaler.update(true);
    scaler.update(true);
    const other = new GradScaler({ growthInterval: 3 });
    other.loadValues(scaler.values());
    other.update(true);
    expect(other.scale).toBe(16);
  });

  test("refuses options and saved values that make no sense", () => {
    expect(() => new GradScaler({ initScale: 0 })).toThrow(ConfigError);
    expect(() => new GradScaler({ backoffFactor: 1 })).toThrow(/backoffFactor 1/);
    expect(() => new GradScaler().loadValues({ scale: -1, goodSteps: 0 })).toThrow(ConfigError);
  });
});

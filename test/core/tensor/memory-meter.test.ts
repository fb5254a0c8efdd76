import { expect, test } from "bun:test";
import { MemoryMeter } from "../../../core/tensor/memory-meter.ts";

test("peaks are kept per category, in total and for parameters, gradients and optimizer state together", () => {
  const meter = new MemoryMeter();
  meter.add("parameter", 100);
  meter.add("activation", 50);
  meter.remove("activation", 50);
  meter.add("gradient", 10);
  meter.remove("parameter", 40);
  meter.add("optimizer", 20);
  const report = meter.report();
  expect(report.current).toEqual({
    parameter: 60,
    gradient: 10,
    optimizer: 20,
    activation: 0,
    communication: 0,
  });
  expect(report.peak).toEqual({
    parameter: 100,
    gradient: 10,
    optimizer: 20,
    activation: 50,
    communication: 0,
  });
  expect(report.currentTotal).toBe(90);
  expect(report.peakTotal).toBe(150);
  expect(report.peakState).toBe(110);
});

test("resetPeak starts from what is held now", () => {
  const meter = new MemoryMeter();
  meter.add("activation", 50);
  meter.add("parameter", 5);
  meter.remove("activation", 50);
  meter.resetPeak();
  const report = meter.report();
  expect(report.peak.activation).toBe(0);
  expect(report.peakTotal).toBe(5);
  expect(report.peakState).toBe(5);
});

test("moving bytes to another category never counts them twice", () => {
  const meter = new MemoryMeter();
  meter.add("communication", 30);
  meter.move("communication", "gradient", 30);
  const report = meter.report();
  expect(report.current.communication).toBe(0);
  expect(report.current.gradient).toBe(30);
  expect(report.peakTotal).toBe(30);
});

test("a report is a snapshot", () => {
  const meter = new MemoryMeter();
  const before = meter.report();
  meter.add("parameter", 1);
  expect(before.current.parameter).toBe(0);
});

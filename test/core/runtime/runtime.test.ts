import { expect, test } from "bun:test";
import { cpuCount, RUNTIME, runtimeDescription } from "../../../core/runtime/runtime.ts";

test("the runtime is known by name and version", () => {
  expect(RUNTIME).toEqual({ name: "bun", version: Bun.version });
  expect(runtimeDescription()).toBe(`Bun ${Bun.version}`);
});

test("there is at least one core", () => {
  expect(cpuCount()).toBeGreaterThanOrEqual(1);
  expect(Number.isInteger(cpuCount())).toBe(true);
});

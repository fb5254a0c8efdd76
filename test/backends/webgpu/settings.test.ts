import { expect, test } from "bun:test";
import { webgpuBackend } from "../../../backends/webgpu/mod.ts";
import { parseSettings } from "../../../backends/webgpu/settings.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";

test("defaults run fast, and every setting is taken", () => {
  const defaults = parseSettings();
  expect(defaults).toMatchObject({ provider: "dawn", checks: false, f16: true, adapter: undefined });
  expect(defaults.memoryLimit).toBe(Number.POSITIVE_INFINITY);
  const given = { checks: "on", f16: "off", "memory-limit": "1000", adapter: "2", power: "low-power" };
  expect(parseSettings(given)).toMatchObject({
    ...{ checks: true, f16: false, memoryLimit: 1000, adapter: 2, power: "low-power" },
  });
});

test("a PCI address is taken with and without its domain", () => {
  expect(parseSettings({ adapter: "0000:0A:07.0" }).adapter).toBe("0000:0a:07.0");
  expect(parseSettings({ adapter: "0a:07.1" }).adapter).toBe("0000:0a:07.1");
});

test("unknown settings and values list what is allowed", () => {
  expect(() => parseSettings({ speed: "on" })).toThrow(ConfigError);
  expect(() => parseSettings({ speed: "on" })).toThrow(
    "webgpu setting speed: unknown, allowed: provider, checks",
  );
  expect(() => parseSettings({ toString: "on" })).toThrow(ConfigError);
  expect(() => parseSettings({ checks: "yes" })).toThrow(
    new ConfigError('webgpu setting checks: "yes" was given, allowed: off, on'),
  );
  for (const adapter of ["", "-1", "1.5", "nvidia", "0000:00:07"]) {
    expect(() => parseSettings({ adapter })).toThrow("allowed: an index from 0, or a PCI address");
  }
  for (const bytes of ["", "-1", "1e9", "4 GiB", "0"]) {
    expect(() => parseSettings({ "memory-limit": bytes })).toThrow("allowed: a number of bytes");
  }
});

test("an adapter that is not there, and a runtime without WebGPU, are refused with what to do", async () => {
  await expect(webgpuBackend.create({ settings: { adapter: "99" } })).rejects.toThrow(
    "adapter 99 was asked for",
  );
  await expect(webgpuBackend.create({ settings: { provider: "runtime" } })).rejects.toThrow(
    "this runtime has no navigator.gpu",
  );
});

test("the probe always answers, with an adapter or with how to get one", async () => {
  const lines = await webgpuBackend.probe();
  expect(lines[0]!.what).toBe("webgpu adapter");
  expect(lines.every(({ found }) => found.length > 0)).toBe(true);
});

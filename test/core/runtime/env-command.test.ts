import { describe, expect, test } from "bun:test";
import { DeviceError } from "../../../core/contracts/errors.ts";
import {
  BACKEND,
  type BackendFactory,
  COMMAND,
  type ProbeLine,
  TRANSPORT,
} from "../../../core/contracts/plugin.ts";
import { runCommandLine } from "../../../core/runtime/command-line.ts";
import { envPlugin } from "../../../core/runtime/env-command.ts";
import { createRegistry, usePlugins } from "../../../core/runtime/registry.ts";

async function env(...argv: string[]): Promise<string> {
  const registry = createRegistry({ root: new URL("../../../mod.ts", import.meta.url).href });
  usePlugins(registry, [envPlugin]);
  const backend = (probe: () => Promise<readonly ProbeLine[]>): BackendFactory => ({
    probe,
    create: () => Promise.reject(new DeviceError("env must not make a device")),
  });
  registry.register(
    BACKEND,
    "good",
    backend(async () => [{ what: "adapter", found: "a fine one" }]),
  );
  registry.register(
    BACKEND,
    "bad",
    backend(() => Promise.reject(new DeviceError("no adapter"))),
  );
  registry.register({ name: "sharding" }, "fsdp9", {});
  registry.register(TRANSPORT, "pigeon", {
    name: "pigeon",
    launch: () => {
      throw new DeviceError("env must not launch");
    },
  });
  registry.register(COMMAND, "train", {
    summary: "trains",
    options: {
      backend: { type: "string", description: "device", default: "good" },
      world_size: { type: "integer", description: "ranks", default: 2 },
      steps: { type: "integer", description: "steps", default: 300 },
    },
    run: async () => 0,
  });
  const lines: string[] = [];
  const code = await runCommandLine(registry, ["env", ...argv], {
    print: (line) => lines.push(line),
    printError: (line) => lines.push(line),
    drain: async () => {},
  });
  expect(code).toBe(0);
  return lines.join("\n");
}

describe("env", () => {
  test("--json gives one object with the machine, the probes, what is registered, and what train uses", async () => {
    const report = JSON.parse(await env("--json"));
    expect(report).toMatchObject({
      runtime: `Bun ${Bun.version}`,
      backends: {
        good: [{ what: "adapter", found: "a fine one" }],
        bad: [{ what: "bad", found: "probe failed: no adapter" }],
      },
      registered: {
        backend: ["good", "bad"],
        collective: ["pigeon"],
        sharding: ["fsdp9"],
        command: ["env", "train"],
        plugin: ["env"],
      },
      defaults: { backend: "good", world_size: 2 },
    });
    expect(report.defaults).not.toHaveProperty("steps");
    expect(report.cores).toBeGreaterThan(0);
    expect(report.memoryBytes).toBeGreaterThan(0);
  });

  test("for people it says the same in sections", async () => {
    const text = await env();
    for (const part of [
      /^machine\n {2}fsdp {7}\d/m,
      /^backend good\n {2}adapter {2}a fine one$/m,
      /^ {2}bad {2}probe failed: no adapter$/m,
      /^ {2}collective {2}pigeon$/m,
      /^train uses by default\n {2}backend {5}good\n {2}world_size {2}2$/m,
    ]) {
      expect(text).toMatch(part);
    }
  });
});

/** saveModel: what Hugging Face's libraries would find is the model, whatever it is sharded by. */
import { describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { safetensorsFormat } from "../../../../checkpoint/formats/safetensors/format.ts";
import { launch } from "../../../../mod.ts";
import { inFolder } from "../../../support/command.ts";
import type { CheckpointStep } from "./checkpoint-programs.ts";
import type { Run } from "./programs.ts";

const PROGRAMS = new URL("checkpoint-programs.ts", import.meta.url).href;

/** What every rank saw. */
async function ranks(worldSize: number, run: Run, steps: readonly CheckpointStep[]): Promise<unknown[][]> {
  const options = { worldSize, collective: "local", export: "checkpoints", args: { ...run, steps }, seed: 5 };
  return (await launch(PROGRAMS, options)) as unknown[][];
}

/** The values of a folder's weights. */
async function read(folder: string): Promise<Record<string, readonly number[]>> {
  const reader = await safetensorsFormat.open(folder);
  try {
    const entries = reader.names.map(async (name) => [
      name,
      Array.from((await reader.read(name)) as Float32Array),
    ]);
    return Object.fromEntries(await Promise.all(entries));
  } finally {
    await reader.close();
  }
}

const RUNS: readonly [string, number, Run][] = [
  ["FSDP2", 1, {}],
  ["FSDP2", 3, {}],
  ["FSDP1", 2, { version: 1 }],
  ["FSDP1 with flat parameters", 3, { plugin: { fsdpVersion: 1, useOrigParams: false } }],
  ["NO_SHARD", 2, { plugin: { fsdpVersion: 1, shardingStrategy: "NO_SHARD" } }],
  ["replicas", 4, { plugin: { replicas: 2 }, batchSize: 8 }],
  ["cpuOffload", 2, { plugin: { cpuOffload: true } }],
  ["ignoredModules", 2, { plugin: { ignoredModules: "down" } }],
];

describe("saveModel", () => {
  test.each(RUNS)("of %s on %d ranks writes the model that getStateDict gives", async (_, worldSize, run) => {
    await inFolder(async (folder) => {
      const target = join(folder, "deep", "model");
      for (const [, weights] of await ranks(worldSize, run, [
        { do: "model", at: target },
        { do: "weights" },
      ])) {
        expect(await read(target)).toEqual(weights as Record<string, readonly number[]>);
      }
      expect(await readdir(target)).toEqual(["model.safetensors"]);
      expect((await readFile(join(target, "model.safetensors"))).subarray(0, 200).toString()).toContain(
        '"__metadata__":{"format":"pt"}',
      );
    });
  });

  test("cuts large models into files behind an index, and leaves none of an earlier save", async () => {
    await inFolder(async (target) => {
      const sizes = [100, undefined, "0.01KB", "1GB"];
      const steps = sizes.flatMap((size) => [{ do: "model" as const, at: target, ...(size && { size }) }]);
      const names: string[][] = [];
      for (const step of steps) {
        const [[failure, weights] = []] = await ranks(2, {}, [step, { do: "weights" }]);
        expect(failure).toBeNull();
        expect(await read(target)).toEqual(weights as Record<string, readonly number[]>);
        names.push((await readdir(target)).sort());
      }
      expect(names[0]!.length).toBeGreaterThan(2);
      expect(names[0]).toContain("model.safetensors.index.json");
      expect([names[1], names[3]]).toEqual([["model.safetensors"], ["model.safetensors"]]);
      expect(names[2]!.length).toBeGreaterThan(names[0]!.length);
    });
  });

  test("that fails fails on every rank, keeps the weights that were there, and lets the run go on", async () => {
    await inFolder(async (folder) => {
      await writeFile(join(folder, "file"), "");
      const kept = join(folder, "kept");
      await mkdir(kept);
      await mkdir(join(kept, "model.safetensors"));
      await writeFile(join(kept, "model.safetensors", "mine"), "");
      const seen = await ranks(3, {}, [
        { do: "model", at: join(folder, "file", "below") },
        { do: "model", at: kept },
        { do: "model", at: folder, size: "big" },
        { do: "model", at: folder, size: 0 },
        { do: "model", at: join(folder, "good") },
      ]);
      for (const [below, taken, word, none, good] of seen) {
        expect(below).toStartWith(
          `CheckpointError: saveModel() to ${join(folder, "file", "below")} failed: `,
        );
        expect(taken).toStartWith(`CheckpointError: saveModel() to ${kept} failed: `);
        expect(word).toBe(
          'ConfigError: cannot use maxShardSize: given "big", allowed are bytes, or sizes such as "500MB", "5GB", "2GiB"',
        );
        expect(none).toStartWith('ConfigError: cannot use maxShardSize: given "0"');
        expect(good).toBeNull();
      }
      expect(await readdir(join(kept, "model.safetensors"))).toEqual(["mine"]);
      expect(await readdir(kept)).toEqual(["model.safetensors"]);
    });
  });
});

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import type { CheckpointerOptions, CheckpointStore } from "../../core/contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../../core/contracts/errors.ts";
import { runRanks } from "./ranks.ts";
import { dimZero, emptyState, patternTensor, shardedState } from "./states.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-retention-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const TENSORS = [patternTensor("w", "float32", [4])];

async function save(store: CheckpointStore, step: number, options: CheckpointerOptions = {}) {
  const checkpointer = nativeCheckpointer(store, options);
  // Each step's files are its own: of shared ones, damage to one would be damage to both.
  const tensors = [{ ...patternTensor(`step ${step}`, "float32", [4]), name: "w" }];
  await runRanks(2, (collective) =>
    checkpointer.save(shardedState(tensors, dimZero(2), collective.rank), step, collective),
  );
}

const stepsOf = async (store: CheckpointStore): Promise<number[]> =>
  (await nativeCheckpointer(store).list()).map(({ step }) => step);

describe("retention", () => {
  test("keeps the newest so many, and those at every so many steps", async () => {
    const store = memoryStore("memory:retention");
    for (const step of [0, 1, 2, 3, 4, 5, 6, 7]) await save(store, step, { keepLast: 2, keepEvery: 4 });
    expect(await stepsOf(store)).toEqual([0, 4, 6, 7]);
    const all = memoryStore("memory:retention-all");
    for (const step of [1, 2, 3]) await save(all, step, { keepEvery: 2 });
    expect(await stepsOf(all)).toEqual([1, 2, 3]);
  });

  test("whatever is damaged, never deletes the newest good ones, nor what is damaged", async () => {
    let count = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom("good", "manifest", "short", "missing"), { maxLength: 5 }),
        fc.integer({ min: 1, max: 3 }),
        async (kinds, keepLast) => {
          const root = join(folder, `run-${count++}`);
          const store = directoryStore(root);
          for (const [step, kind] of kinds.entries()) {
            await save(store, step);
            const path = (file: string) => join(root, `step-0000000${step}`, file);
            if (kind === "manifest") await writeFile(path("manifest.msgpack"), "nonsense");
            if (kind === "short") await truncate(path("rank-00001.safetensors"), 100);
            if (kind === "missing") await rm(path("rank-00000.safetensors"));
          }
          await save(store, 9, { keepLast });
          const good = [...kinds.flatMap((kind, step) => (kind === "good" ? [step] : [])), 9].slice(
            -keepLast,
          );
          const damaged = kinds.flatMap((kind, step) => (kind === "good" ? [] : [step]));
          const due = [...good, ...damaged].sort((a, b) => a - b).map((step) => `step-0000000${step}`);
          expect(await store.list()).toEqual(due);
        },
      ),
      { numRuns: 25 },
    );
  });

  test("that fails is told, and the save counts", async () => {
    const inner = memoryStore("memory:retention-fails");
    const store: CheckpointStore = {
      ...inner,
      delete: async () => {
        throw new CheckpointError("not allowed");
      },
    };
    const told: unknown[] = [];
    const options = { keepLast: 1, onRetentionFailure: (error: unknown) => void told.push(error) };
    for (const step of [1, 2]) await save(store, step, options);
    expect(await stepsOf(inner)).toEqual([1, 2]);
    expect(told.map(String)).toEqual(["CheckpointError: not allowed"]);
  });

  test("that would keep nothing is refused", () => {
    for (const keepLast of [0, -1, 1.5, Number.NaN]) {
      expect(() => nativeCheckpointer(memoryStore("memory:none"), { keepLast })).toThrow(ConfigError);
    }
    expect(() => nativeCheckpointer(memoryStore("memory:none"), { keepEvery: 0 })).toThrow(
      "keepEvery is 0, allowed are integers of at least 1",
    );
  });
});

describe("a checkpoint whose manifest is damaged", () => {
  test("is told of and left out of the list, and latest is the newest before it", async () => {
    const root = join(folder, "damaged");
    const store = directoryStore(root);
    for (const step of [1, 2, 3]) await save(store, step);
    await writeFile(join(root, "step-00000003", "manifest.msgpack"), "nonsense");
    const told: string[] = [];
    const checkpointer = nativeCheckpointer(store);
    const infos = await checkpointer.list({ onDamaged: (name, problem) => told.push(`${name}: ${problem}`) });
    expect(infos.map(({ step }) => step)).toEqual([1, 2]);
    expect(told.length).toBe(1);
    expect(told[0]).toStartWith("step-00000003: checkpoint step-00000003: manifest.msgpack: ");
    const load = (name: string) =>
      runRanks(1, (collective) =>
        checkpointer.load(emptyState(TENSORS, dimZero(1), 0).state, name, collective),
      );
    expect((await load("latest"))[0]!.info.step).toBe(2);
    await expect(load("step-00000003")).rejects.toThrow("manifest.msgpack");
    for (const step of [1, 2]) await writeFile(join(root, `step-0000000${step}`, "manifest.msgpack"), "");
    await expect(load("latest")).rejects.toThrow("that can be read: checkpoint step-00000003");
  });
});

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import type { ShardedState } from "../../core/contracts/checkpointer.ts";
import { runRanks } from "./ranks.ts";
import { cutBox, dimZero, emptyState, type FullTensor, patternTensor, shardedState } from "./states.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-shared-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const FROZEN = patternTensor("model.frozen", "float32", [9, 4]);
const adapter = (step: number): FullTensor => ({
  ...patternTensor(`step ${step}`, "float32", [6]),
  name: "model.adapter",
});

/** Two ranks' halves of a frozen weight and of an adapter that changes with the step. */
function lora(step: number, rank: number, frozen = FROZEN): ShardedState {
  const state = shardedState([frozen, adapter(step)], dimZero(2), rank);
  return {
    ...state,
    tensors: state.tensors.map((tensor) => ({ ...tensor, constant: tensor.name === FROZEN.name })),
  };
}

function place(name: string) {
  const root = join(folder, name);
  const checkpointer = nativeCheckpointer(directoryStore(root));
  const save = (step: number, frozen = FROZEN) =>
    runRanks(2, (collective) => checkpointer.save(lora(step, collective.rank, frozen), step, collective));
  const inode = async (step: number, file: string) =>
    (await stat(join(root, `step-0000000${step}`, file))).ino;
  return { root, checkpointer, save, inode };
}

const CONSTANT = ["rank-00000-constant.safetensors", "rank-00001-constant.safetensors"];
const VARYING = ["rank-00000.safetensors", "rank-00001.safetensors"];

describe("a file that did not change since the last checkpoint", () => {
  test("is stored once: that of frozen weights, while others change", async () => {
    const { save, inode, checkpointer } = place("frozen");
    for (const step of [1, 2, 3]) await save(step);
    for (const file of CONSTANT) {
      expect(new Set(await Promise.all([1, 2, 3].map((step) => inode(step, file)))).size).toBe(1);
    }
    for (const file of VARYING) {
      expect(new Set(await Promise.all([1, 2, 3].map((step) => inode(step, file)))).size).toBe(3);
    }
    await checkpointer.delete("step-00000001");
    await checkpointer.delete("step-00000002");
    expect(await checkpointer.verify("step-00000003")).toEqual([]);
    await runRanks(3, async (collective) => {
      const { state, filled } = emptyState([FROZEN, adapter(3)], dimZero(3), collective.rank);
      await checkpointer.load(state, "latest", collective);
      for (const { tensor, box, bytes } of filled) expect(bytes).toEqual(cutBox(tensor, box));
    });
  });

  test("is found by its content: also one that was not said to be constant, and not one that was and changed", async () => {
    const { save, inode } = place("content");
    await save(1);
    await save(2, { ...patternTensor("thawed", "float32", [9, 4]), name: FROZEN.name });
    for (const file of CONSTANT) expect(await inode(2, file)).not.toBe(await inode(1, file));
    const { checkpointer, inode: same } = place("same");
    for (const step of [1, 2]) {
      await runRanks(2, (collective) => checkpointer.save(lora(7, collective.rank), step, collective));
    }
    for (const file of VARYING) expect(await same(2, file)).toBe(await same(1, file));
  });

  test("is written again when the stored one has rotted", async () => {
    const { root, save, inode, checkpointer } = place("rotten");
    await save(1);
    const path = join(root, "step-00000001", CONSTANT[0]!);
    const bytes = await readFile(path);
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(path, bytes);
    await save(2);
    expect(await inode(2, CONSTANT[0]!)).not.toBe(await inode(1, CONSTANT[0]!));
    expect(await inode(2, CONSTANT[1]!)).toBe(await inode(1, CONSTANT[1]!));
    expect(await checkpointer.verify("step-00000002")).toEqual([]);
    expect(await checkpointer.verify("step-00000001")).not.toEqual([]);
  });
});

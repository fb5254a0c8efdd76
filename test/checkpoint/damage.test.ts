import { afterAll, describe, expect, test } from "bun:test";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import type { CheckpointStore } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { generator } from "./layouts.ts";
import { runRanks, settleRanks } from "./ranks.ts";
import { dimZero, emptyState, patternTensor, replicated, shardedState } from "./states.ts";

const root = await mkdtemp(join(tmpdir(), "fsdp-damage-"));
afterAll(() => rm(root, { recursive: true, force: true }));

const NAME = "step-00000001";
const store = directoryStore(root);
const checkpointer = nativeCheckpointer(store, { now: () => 0 });
const SMALL = [patternTensor("w", "float32", [7, 3]), patternTensor("b", "int64", [5])];

async function saveFresh(tensors = SMALL): Promise<void> {
  await rm(join(root, NAME), { recursive: true, force: true });
  await runRanks(2, (collective) =>
    checkpointer.save(shardedState(tensors, dimZero(2), collective.rank, { note: "kept" }), 1, collective),
  );
}

async function loadError(tensors = SMALL, from: CheckpointStore = store): Promise<string | undefined> {
  const [result] = await settleRanks(1, (collective) =>
    nativeCheckpointer(from).load(emptyState(tensors, replicated, 0).state, NAME, collective),
  );
  if (result!.status === "fulfilled") return undefined;
  expect(result!.reason).toBeInstanceOf(CheckpointError);
  return (result!.reason as Error).message;
}

describe("damage", () => {
  test("no flipped byte of any file passes load and verify, and both name the file", async () => {
    const memory = memoryStore("memory:damage");
    await runRanks(2, (collective) =>
      nativeCheckpointer(memory).save(
        shardedState(SMALL, dimZero(2), collective.rank, { note: "kept" }),
        1,
        collective,
      ),
    );
    let flip = { file: "", at: 0, mask: 0 };
    const store: CheckpointStore = {
      ...memory,
      async read(name, file, begin, end) {
        const bytes = await memory.read(name, file, begin, end);
        if (file === flip.file && begin <= flip.at && flip.at < end) bytes[flip.at - begin]! ^= flip.mask;
        return bytes;
      },
    };
    expect(await loadError(SMALL, store)).toBeUndefined();
    expect(await nativeCheckpointer(store).verify(NAME)).toEqual([]);
    const random = generator(7);
    for (const file of await store.files(NAME)) {
      const length = await store.size(NAME, file);
      for (let at = 0; at < length; at++) {
        flip = { file, at, mask: 1 << random(8) };
        expect(await loadError(SMALL, store)).toContain(file);
        expect((await nativeCheckpointer(store).verify(NAME)).map((fault) => fault.file)).toEqual([file]);
      }
    }
  });

  test("a damaged block is named by its number, and what does not touch it still loads", async () => {
    const tensors = [patternTensor("a", "float32", [700_000]), patternTensor("z", "float32", [700_000])];
    await saveFresh(tensors);
    const path = join(root, NAME, "rank-00001.safetensors");
    const bytes = await readFile(path);
    bytes[2_500_000]! ^= 0x10;
    await writeFile(path, bytes);
    expect(await loadError(tensors)).toContain("rank-00001.safetensors: block 2 does not match its checksum");
    expect(await checkpointer.verify(NAME)).toEqual([
      { file: "rank-00001.safetensors", problem: "block 2 does not match its checksum" },
    ]);
    expect(await loadError(tensors.slice(0, 1))).toBeUndefined();
  });

  test("truncated, missing and foreign files are reported", async () => {
    await saveFresh();
    const path = join(root, NAME, "rank-00001.safetensors");
    const length = await store.size(NAME, "rank-00001.safetensors");
    await truncate(path, length - 1);
    expect(await loadError()).toContain("rank-00001.safetensors");
    const problems = (await checkpointer.verify(NAME)).map((fault) => fault.problem);
    expect(problems).toContain(`has ${length - 1} bytes, due are ${length}`);
    await rm(path);
    await writeFile(join(root, NAME, "extra.bin"), "x");
    expect(await loadError()).toContain("no file rank-00001.safetensors");
    expect(await checkpointer.verify(NAME)).toEqual([
      { file: "extra.bin", problem: "not listed in the manifest" },
      { file: "rank-00001.safetensors", problem: "missing" },
    ]);
  });

  test("a checkpoint without its manifest does not exist", async () => {
    await saveFresh();
    await rm(join(root, NAME, "manifest.msgpack"));
    expect(await checkpointer.list()).toEqual([]);
    expect(await loadError()).toContain("not in");
    await expect(checkpointer.verify(NAME)).rejects.toThrow(CheckpointError);
  });
});

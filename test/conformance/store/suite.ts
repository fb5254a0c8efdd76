/**
 * What every checkpoint store must do. A store passes by being handed to `storeConformance`.
 *
 * @module
 */
import { describe, expect, test } from "bun:test";
import { BLOCK_BYTES, hashFile } from "../../../checkpoint/digest.ts";
import { encodeManifest } from "../../../checkpoint/manifest.ts";
import type { CheckpointStore, StoreTransaction } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";

const MANIFEST = "manifest.msgpack";

/** Runs the suite; `fresh` opens an empty store each time. */
export function storeConformance(name: string, fresh: () => Promise<CheckpointStore>): void {
  describe(`${name} store`, () => {
    test("a folder appears by its commit, whole, and not before", async () => {
      const store = await fresh();
      const transaction = await store.begin("a");
      await put(transaction, "x.bin", [1, 2], [3]);
      await put(transaction, MANIFEST, [9]);
      expect(await store.list()).toEqual([]);
      await expect(store.size("a", "x.bin")).rejects.toThrow(CheckpointError);
      expect(await transaction.read("x.bin")).toEqual(Uint8Array.of(1, 2, 3));
      await transaction.commit();
      expect(await store.list()).toEqual(["a"]);
      expect(await store.files("a")).toEqual([MANIFEST, "x.bin"]);
      expect(await store.size("a", "x.bin")).toBe(3);
      expect(await store.read("a", "x.bin", 1, 3)).toEqual(Uint8Array.of(2, 3));
      expect(await store.read("a", "x.bin", 3, 3)).toEqual(new Uint8Array(0));
    });

    test("bytes may be reused as soon as a write resolves, and an empty file is a file", async () => {
      const store = await fresh();
      const transaction = await store.begin("a");
      const writer = await transaction.create("x");
      const bytes = Uint8Array.of(1);
      await writer.write(bytes);
      bytes[0] = 2;
      await writer.write(bytes);
      await writer.close();
      await put(transaction, "empty");
      await put(transaction, MANIFEST);
      await transaction.commit();
      expect(await store.read("a", "x", 0, 2)).toEqual(Uint8Array.of(1, 2));
      expect(await store.size("a", "empty")).toBe(0);
    });

    test("ranks that join write into the same folder; a foreign id is refused", async () => {
      const store = await fresh();
      const first = await store.begin("a");
      const second = await store.join("a", first.id);
      await put(second, "y", [7]);
      expect(await first.read("y")).toEqual(Uint8Array.of(7));
      await put(first, MANIFEST, [1]);
      await first.commit();
      expect(await store.files("a")).toEqual([MANIFEST, "y"]);
      for (const id of ["", "../a", "00000000-0000-0000-0000-000000000000"]) {
        await expect(store.join("a", id)).rejects.toThrow(CheckpointError);
      }
      await expect(store.join("b", first.id)).rejects.toThrow(CheckpointError);
    });

    test("a commit without a manifest is refused", async () => {
      const store = await fresh();
      const transaction = await store.begin("a");
      await put(transaction, "x", [1]);
      await expect(transaction.commit()).rejects.toThrow(CheckpointError);
      await transaction.abort();
      expect(await store.list()).toEqual([]);
    });

    test("a file is created once, and may be dropped while written or removed after", async () => {
      const store = await fresh();
      const transaction = await store.begin("a");
      await put(transaction, "x", [1]);
      await expect(transaction.create("x")).rejects.toThrow(CheckpointError);
      await transaction.remove("x");
      await expect(transaction.remove("x")).rejects.toThrow(CheckpointError);
      await expect(transaction.read("x")).rejects.toThrow(CheckpointError);
      const dropped = await transaction.create("y");
      await dropped.write(Uint8Array.of(1));
      await dropped.abort();
      await put(transaction, MANIFEST, [1]);
      await transaction.commit();
      expect(await store.files("a")).toEqual([MANIFEST]);
    });

    test("what was aborted or committed can no longer be written", async () => {
      const store = await fresh();
      for (const end of ["abort", "commit"] as const) {
        const transaction = await store.begin("a");
        await put(transaction, MANIFEST, [1]);
        await transaction[end]();
        await expect(transaction.create("x")).rejects.toThrow(CheckpointError);
        await expect(transaction.commit()).rejects.toThrow(CheckpointError);
        await transaction.abort();
      }
      expect(await store.list()).toEqual(["a"]);
    });

    test("a taken name is refused at begin; of many commits at once one wins and keeps its bytes", async () => {
      const store = await fresh();
      const all = await Promise.all(Array.from({ length: 8 }, () => store.begin("a")));
      for (const [i, transaction] of all.entries()) await put(transaction, MANIFEST, [i]);
      const results = await Promise.allSettled(all.map((transaction) => transaction.commit()));
      const winners = results.flatMap((result, i) => (result.status === "fulfilled" ? [i] : []));
      expect(winners.length).toBe(1);
      for (const result of results)
        if (result.status === "rejected") expect(result.reason).toBeInstanceOf(CheckpointError);
      expect(await store.read("a", MANIFEST, 0, 1)).toEqual(Uint8Array.of(winners[0]!));
      await expect(store.begin("a")).rejects.toThrow(CheckpointError);
      for (const transaction of all) await transaction.abort();
      expect(await store.list()).toEqual(["a"]);
    });

    test("a file that is linked holds the bytes of the one it came from, also when that is deleted", async () => {
      const store = await fresh();
      const first = await store.begin("a");
      await put(first, "x", [1, 2, 3]);
      await put(first, MANIFEST, [...manifestOf("x", Uint8Array.of(1, 2, 3))]);
      await first.commit();
      const second = await store.begin("b");
      if (second.link !== undefined) {
        await second.link("y", { name: "a", file: "x" });
        for (const from of [
          { name: "a", file: "absent" },
          { name: "absent", file: "x" },
          { name: "../a", file: "x" },
          { name: "a", file: "../x" },
        ]) {
          await expect(second.link("z", from)).rejects.toThrow(CheckpointError);
        }
        await expect(second.link("../y", { name: "a", file: "x" })).rejects.toThrow(CheckpointError);
        await expect(second.create("y")).rejects.toThrow(CheckpointError);
      } else {
        await put(second, "y", [1, 2, 3]);
      }
      await put(second, MANIFEST, [2]);
      await second.commit();
      await store.delete("a");
      expect(await store.read("b", "y", 0, 3)).toEqual(Uint8Array.of(1, 2, 3));
    });

    test("a file that is opened gives any of its bytes, several at once, and refuses others", async () => {
      const store = await fresh();
      const transaction = await store.begin("a");
      await put(transaction, "x", [1, 2, 3, 4]);
      await put(transaction, MANIFEST, [1]);
      await transaction.commit();
      if (store.open === undefined) return;
      const reader = await store.open("a", "x");
      const targets = [0, 1, 2].map((begin) => ({ begin, bytes: new Uint8Array(2) }));
      await Promise.all(targets.map(({ begin, bytes }) => reader.readInto(bytes, begin)));
      expect(targets.map(({ bytes }) => [...bytes])).toEqual([
        [1, 2],
        [2, 3],
        [3, 4],
      ]);
      await reader.readInto(new Uint8Array(0), 4);
      await expect(reader.readInto(new Uint8Array(2), 3)).rejects.toThrow(CheckpointError);
      await expect(reader.readInto(new Uint8Array(1), -1)).rejects.toThrow(CheckpointError);
      await reader.close();
      await expect(store.open("a", "absent")).rejects.toThrow(CheckpointError);
      await expect(store.open("absent", "x")).rejects.toThrow(CheckpointError);
      await expect(store.open("../a", "x")).rejects.toThrow(CheckpointError);
    });

    test("a deleted name is gone and free again; deleting what is not there is refused", async () => {
      const store = await fresh();
      for (const value of [1, 2]) {
        const transaction = await store.begin("a");
        await put(transaction, MANIFEST, [value]);
        await transaction.commit();
        expect(await store.read("a", MANIFEST, 0, 1)).toEqual(Uint8Array.of(value));
        await store.delete("a");
        expect(await store.list()).toEqual([]);
      }
      await expect(store.delete("a")).rejects.toThrow(CheckpointError);
    });

    test("names that could leave their folder or collide are refused everywhere", async () => {
      const store = await fresh();
      const good = await store.begin("good-1.0_x");
      await put(good, MANIFEST, [1]);
      const bad = [
        "",
        ".",
        "..",
        "a/b",
        "../a",
        "/etc/passwd",
        "a\\b",
        "C:",
        "a..b",
        "A",
        "é",
        "a\0b",
        "a ",
        ".hidden",
        "-a",
        "a.",
        "a\n",
        "x".repeat(129),
      ];
      for (const name of bad) {
        await expect(store.begin(name)).rejects.toThrow(CheckpointError);
        await expect(store.join(name, good.id)).rejects.toThrow(CheckpointError);
        await expect(store.delete(name)).rejects.toThrow(CheckpointError);
        await expect(store.files(name)).rejects.toThrow(CheckpointError);
        await expect(good.create(name)).rejects.toThrow(CheckpointError);
      }
      await good.commit();
      for (const name of bad) {
        await expect(store.size("good-1.0_x", name)).rejects.toThrow(CheckpointError);
        await expect(store.read(name, MANIFEST, 0, 1)).rejects.toThrow(CheckpointError);
      }
    });

    test("ranges outside a file are refused, never cut short", async () => {
      const store = await fresh();
      const transaction = await store.begin("a");
      await put(transaction, MANIFEST, [1, 2, 3]);
      await transaction.commit();
      for (const [begin, end] of [
        [0, 4],
        [-1, 2],
        [2, 1],
        [4, 4],
        [0.5, 1],
        [0, Number.NaN],
      ] as const) {
        await expect(store.read("a", MANIFEST, begin, end)).rejects.toThrow(CheckpointError);
      }
      await expect(store.read("a", "absent", 0, 0)).rejects.toThrow(CheckpointError);
    });
  });
}

/** A manifest that lists one file: a store may look a file up in it. */
function manifestOf(name: string, bytes: Uint8Array): Uint8Array {
  const hasher = hashFile();
  hasher.update(bytes);
  const files = [{ name, block: BLOCK_BYTES, ...hasher.finish() }];
  return encodeManifest({
    step: 1,
    worldSize: 1,
    createdAt: 0,
    tensors: [],
    files,
    values: {},
    rankValues: [{}],
  });
}

async function put(
  transaction: StoreTransaction,
  file: string,
  ...parts: readonly number[][]
): Promise<void> {
  const writer = await transaction.create(file);
  for (const part of parts) await writer.write(Uint8Array.from(part));
  await writer.close();
}

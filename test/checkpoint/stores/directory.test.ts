import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { directoryStore, openDirectoryStore } from "../../../checkpoint/stores/directory.ts";
import { openMemoryStore } from "../../../checkpoint/stores/memory.ts";
import type { CheckpointStore } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-directory-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

let root = "";
let store: CheckpointStore;
let count = 0;
beforeEach(async () => {
  root = join(folder, `run-${count++}`);
  await mkdir(root);
  store = directoryStore(root);
});

async function save(name: string): Promise<void> {
  const transaction = await store.begin(name);
  const writer = await transaction.create("manifest.msgpack");
  await writer.write(Uint8Array.of(1));
  await writer.close();
  await transaction.commit();
}

async function age(path: string, ms: number): Promise<void> {
  const then = new Date(Date.now() - ms);
  for (const file of await readdir(path)) await utimes(join(path, file), then, then);
  await utimes(path, then, then);
}

describe("leftovers", () => {
  test("of a dead process go once they are still, of a living one they stay until a day has passed", async () => {
    await store.begin("dead");
    await store.begin("alive");
    const [alive, dead] = (await readdir(root)).sort().map((name) => join(root, name));
    const owner = JSON.parse(await readFile(join(dead!, ".owner"), "utf8")) as { host: string; pid: number };
    await writeFile(join(dead!, ".owner"), JSON.stringify({ ...owner, pid: 2 ** 22 + 1 }));
    await save("first");
    expect((await readdir(root)).length).toBe(3);
    await age(dead!, 120_000);
    await age(alive!, 120_000);
    await save("second");
    expect((await readdir(root)).sort()).toEqual([alive!.slice(root.length + 1), "first", "second"]);
    await age(alive!, 25 * 3600_000);
    await save("third");
    expect((await readdir(root)).sort()).toEqual(["first", "second", "third"]);
  });

  test("of another host, or without an owner, stay until a day has passed", async () => {
    const foreign = join(root, ".tmp-x-foreign");
    const bare = join(root, ".tmp-x-bare");
    for (const path of [foreign, bare]) await mkdir(path);
    await writeFile(join(foreign, ".owner"), JSON.stringify({ host: "00", pid: 2 ** 22 + 1 }));
    for (const path of [foreign, bare]) await age(path, 3600_000);
    await save("first");
    expect((await readdir(root)).length).toBe(3);
    for (const path of [foreign, bare]) await age(path, 25 * 3600_000);
    await save("second");
    expect((await readdir(root)).sort()).toEqual(["first", "second"]);
  });

  test("of a cut-short deletion go, and none is ever listed", async () => {
    await mkdir(join(root, ".trash-old"));
    await mkdir(join(root, "empty"));
    await store.begin("open");
    expect(await store.list()).toEqual([]);
    await save("next");
    expect(await store.list()).toEqual(["next"]);
    expect(await readdir(root)).not.toContain(".trash-old");
  });

  test("a committed folder holds only what was created in it", async () => {
    await save("clean");
    expect(await readdir(join(root, "clean"))).toEqual(["manifest.msgpack"]);
  });
});

describe("links", () => {
  test("in the place of a file, a manifest or a folder are not followed", async () => {
    const secret = join(folder, "secret");
    await writeFile(secret, "secret");
    await save("a");
    await symlink(secret, join(root, "a", "leak"));
    await expect(store.read("a", "leak", 0, 1)).rejects.toThrow(CheckpointError);
    await expect(store.size("a", "leak")).rejects.toThrow(CheckpointError);
    await symlink(join(root, "a"), join(root, "b"));
    expect(await store.list()).toEqual(["a"]);
    await expect(store.read("b", "manifest.msgpack", 0, 1)).rejects.toThrow(CheckpointError);
    await expect(store.delete("b")).rejects.toThrow(CheckpointError);
    await expect(store.begin("b")).rejects.toThrow(CheckpointError);
    await mkdir(join(root, "a", "sub"));
    await expect(store.size("a", "sub")).rejects.toThrow(CheckpointError);
  });

  test("placed at the final name while a save runs do not receive it", async () => {
    const transaction = await store.begin("a");
    const writer = await transaction.create("manifest.msgpack");
    await writer.close();
    const elsewhere = join(folder, `elsewhere-${count}`);
    await mkdir(elsewhere);
    await symlink(elsewhere, join(root, "a"));
    await expect(transaction.commit()).rejects.toThrow("the name is taken");
    expect(await readdir(elsewhere)).toEqual([]);
    expect((await lstat(join(root, "a"))).isSymbolicLink()).toBe(true);
  });
});

test("locations with a scheme belong to other stores, and a memory store is one by its name", () => {
  expect(openDirectoryStore("runs/a")?.location).toBe("runs/a");
  expect(openDirectoryStore("http://host/run")).toBeUndefined();
  expect(openDirectoryStore("memory:x")).toBeUndefined();
  expect(openMemoryStore("runs/a")).toBeUndefined();
  expect(openMemoryStore("memory:x")).toBe(openMemoryStore("memory:x")!);
  expect(openMemoryStore("memory:x")).not.toBe(openMemoryStore("memory:y")!);
});

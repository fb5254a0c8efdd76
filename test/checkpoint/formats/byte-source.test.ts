import { describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  memorySource,
  openFile,
  partOf,
  roomFor,
  withEndsAtHand,
} from "../../../checkpoint/formats/byte-source.ts";
import { filePool } from "../../../checkpoint/formats/dcp/file-pool.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { inFolder } from "../../support/command.ts";
import { generator } from "../layouts.ts";

describe("a file", () => {
  test("is read by range, and not beyond what it had when it was opened", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "f");
      await writeFile(path, Uint8Array.of(0, 1, 2, 3, 4));
      const file = await openFile(path);
      expect(file.length).toBe(5);
      expect(await file.read(1, 4)).toEqual(Uint8Array.of(1, 2, 3));
      for (const [begin, end] of [
        [-1, 2],
        [2, 1],
        [0, 6],
        [0.5, 1],
        [Number.NaN, 1],
      ] as const) {
        await expect(file.read(begin, end)).rejects.toBeInstanceOf(CheckpointError);
      }
      await truncate(path, 3);
      await expect(file.read(0, 5)).rejects.toThrow(/ends at byte 3, due is 5/);
      await file.close();
    });
  });

  test("is a regular one: no folder, no pipe, and no link where none may be", async () => {
    await inFolder(async (folder) => {
      await mkdir(join(folder, "folder"));
      execFileSync("mkfifo", [join(folder, "pipe")]);
      await writeFile(join(folder, "file"), "x");
      await symlink(join(folder, "file"), join(folder, "link"));
      for (const name of ["folder", "pipe", "absent"]) {
        await expect(openFile(join(folder, name))).rejects.toBeInstanceOf(CheckpointError);
      }
      await (await openFile(join(folder, "link"))).close();
      await expect(openFile(join(folder, "link"), { refuseLinks: true })).rejects.toBeInstanceOf(
        CheckpointError,
      );
    });
  });
});

test("parts and kept ends give the same bytes as the whole", async () => {
  const random = generator(3);
  const whole = Uint8Array.from({ length: 1000 }, () => random(256));
  const kept = await withEndsAtHand(memorySource(whole), 100);
  const part = partOf(kept, 50, 990);
  for (let i = 0; i < 300; i++) {
    const begin = random(941);
    const end = begin + random(941 - begin);
    expect(await part.read(begin, end)).toEqual(whole.subarray(50 + begin, 50 + end));
  }
  await expect(part.read(0, 941)).rejects.toBeInstanceOf(CheckpointError);
  await expect(kept.read(-1, 5)).rejects.toBeInstanceOf(CheckpointError);
});

test("more than an array holds is refused by name", () => {
  expect(roomFor("model.w", 3)).toEqual(new Uint8Array(3));
  expect(() => roomFor("model.w", 2 ** 50)).toThrow(
    /^read of model.w: 1125899906842624 bytes do not fit into one array/,
  );
});

describe("a pool of files", () => {
  test("reads any number of them at once, keeps few open, and closes all", async () => {
    const open = new Set<string>();
    let most = 0;
    const pool = filePool(async (file) => {
      if (file === "bad") throw new CheckpointError("it is gone");
      expect(open.has(file)).toBe(false);
      open.add(file);
      most = Math.max(most, open.size);
      return {
        ...memorySource(Uint8Array.of(Number(file) & 0xff, 7)),
        close: async () => void open.delete(file),
      };
    });
    const files = Array.from({ length: 300 }, (_, i) => String(i));
    for (let round = 0; round < 3; round++) {
      for (const file of files) expect((await pool.part(file, 0, 2).read(0, 1))[0]).toBe(Number(file) & 0xff);
    }
    expect(most).toBeLessThanOrEqual(65);
    const all = await Promise.all(files.map((file) => pool.part(file, 1, 2).read(0, 1)));
    expect(all.every(([byte]) => byte === 7)).toBe(true);
    await expect(pool.part("bad", 0, 1).read(0, 1)).rejects.toThrow("it is gone");
    await pool.close();
    expect(open.size).toBe(0);
  });
});

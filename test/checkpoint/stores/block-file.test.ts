import { describe, expect, test } from "bun:test";
import { BLOCK, type BlockFile, blockFile } from "../../../checkpoint/stores/block-file.ts";
import { patternTensor } from "../states.ts";
import { type Script, type ScriptedFile, scriptedFile, systemError } from "./scripted-file.ts";

const BLOCKS = 6;
const { bytes: DATA } = patternTensor("blocks", "uint8", [BLOCKS * BLOCK]);
/** Ways to be told that direct writes cannot be; Deno's errors have no code. */
const REFUSALS: readonly Error[] = [
  systemError("EINVAL"),
  systemError("ENOTSUP"),
  systemError("EOPNOTSUPP"),
  new TypeError("Invalid argument (os error 22)"),
  new Error("Operation not supported (os error 95)"),
];
/** Bytes after which the disk is set to work. */
const FLUSHED = new Uint8Array(32 * 1024 * 1024);

async function open(script: Script, direct = true): Promise<{ file: BlockFile; disk: ScriptedFile }> {
  const disk = scriptedFile(script);
  return { file: await blockFile(disk.fs, disk.handle, "file", direct), disk };
}

const block = (i: number, count = 1): Uint8Array => DATA.subarray(i * BLOCK, (i + count) * BLOCK);
const nth = (operations: readonly string[], name: string): number =>
  operations.filter((done) => done === name).length;

describe("whole blocks", () => {
  test("go past the cache where that can be, the rest through it", async () => {
    const { file, disk } = await open(() => undefined);
    await file.writeBlocks(block(0, 2), 0);
    await file.write(DATA.subarray(2 * BLOCK, 2 * BLOCK + 5), 2 * BLOCK);
    await file.sync();
    await file.close();
    expect(disk.content).toEqual(DATA.subarray(0, 2 * BLOCK + 5));
    expect(disk.done).toEqual([
      "direct open",
      "direct write",
      "cached write",
      "cached sync",
      "direct close",
      "cached close",
    ]);
  });

  test("go through the cache where the file is not to be, or cannot be, opened for direct writes", async () => {
    for (const refusal of [undefined, ...REFUSALS]) {
      const { file, disk } = await open(({ name }) => {
        if (name === "direct open") throw refusal;
        return undefined;
      }, refusal !== undefined);
      await file.writeBlocks(block(0, 2), 0);
      await file.close();
      expect(disk.content).toEqual(block(0, 2));
      expect(disk.done).toEqual(["cached write", "cached close"]);
    }
  });

  test("go through the cache from the first that is refused on", async () => {
    for (const refusal of REFUSALS) {
      for (const at of [0, 1, 4]) {
        let writes = 0;
        const { file, disk } = await open(({ name }) => {
          if (name === "direct write" && writes++ >= at) throw refusal;
          return undefined;
        });
        for (let i = 0; i < BLOCKS; i++) await file.writeBlocks(block(i), i * BLOCK);
        await file.close();
        expect(disk.content).toEqual(DATA);
        expect(nth(disk.done, "direct write")).toBe(at);
        expect(writes).toBe(at + 1);
        expect([...disk.opened]).toEqual([]);
      }
    }
  });

  test("that are under way when another is refused come into the file, refused or not", async () => {
    for (const alsoRefused of [false, true]) {
      const held = Promise.withResolvers<undefined>();
      let writes = 0;
      const { file, disk } = await open(({ name }) => {
        if (name !== "direct write") return undefined;
        if (writes++ === 0) return held.promise;
        throw REFUSALS[0];
      });
      const first = file.writeBlocks(block(0, 2), 0);
      await file.writeBlocks(block(2, 2), 2 * BLOCK);
      expect([...disk.opened]).toEqual(["cached", "direct"]);
      if (alsoRefused) held.reject(REFUSALS[3]);
      else held.resolve(undefined);
      await first;
      await file.writeBlocks(block(4, 2), 4 * BLOCK);
      await file.close();
      expect(disk.content).toEqual(DATA);
      expect(nth(disk.done, "direct write")).toBe(alsoRefused ? 0 : 1);
    }
  });

  test("that are taken in parts are written whole, through the cache after an odd part", async () => {
    for (const [taken, direct] of [
      [BLOCK, BLOCKS],
      [BLOCK + 512, 1],
    ] as const) {
      const { file, disk } = await open(async ({ name, length }) =>
        name === "direct write" ? Math.min(taken, length) : Math.min(1000, length),
      );
      await file.writeBlocks(DATA, 0);
      await file.close();
      expect(disk.content).toEqual(DATA);
      expect(nth(disk.done, "direct write")).toBe(direct);
      expect(nth(disk.done, "cached write")).toBe(direct === 1 ? Math.ceil(DATA.length / 1000) : 0);
    }
  });
});

describe("a failure", () => {
  test("of any kind but a refusal is told, and both handles can be closed", async () => {
    for (const way of ["direct", "cached"]) {
      for (const code of ["ENOSPC", "EIO"]) {
        const { file, disk } = await open(({ name }) => {
          if (name === `${way} write`) throw systemError(code);
          return undefined;
        }, way === "direct");
        await expect(file.writeBlocks(block(0), 0)).rejects.toThrow(code);
        await file.close();
        expect([...disk.opened]).toEqual([]);
      }
    }
  });

  test("of the write that a refused one became is told", async () => {
    const { file } = await open(({ name }) => {
      if (name === "direct write") throw REFUSALS[0];
      if (name === "cached write") throw systemError("ENOSPC");
      return undefined;
    });
    await expect(file.writeBlocks(block(0), 0)).rejects.toThrow("ENOSPC");
    await file.close();
  });

  test("to open the file again leaves no handle open", async () => {
    const disk = scriptedFile(({ name }) => {
      if (name === "direct open") throw systemError("EMFILE");
      return undefined;
    });
    await expect(blockFile(disk.fs, disk.handle, "file", true)).rejects.toThrow("EMFILE");
    expect([...disk.opened]).toEqual([]);
  });

  test("to close one handle is told, and the other is closed", async () => {
    for (const way of ["direct", "cached"]) {
      const { file, disk } = await open(({ name }) => {
        if (name === `${way} close`) throw systemError("EIO");
        return undefined;
      });
      await expect(file.close()).rejects.toThrow("EIO");
      expect([...disk.opened]).toEqual([]);
    }
  });

  test("of the disk at work in the background is told by sync, and by close, which closes all", async () => {
    for (const direct of [true, false]) {
      const { file, disk } = await open(({ name }) => {
        if (name === "cached datasync") throw systemError("EIO");
        return undefined;
      }, direct);
      await file.write(FLUSHED, 0);
      await file.write(block(0), FLUSHED.length);
      await expect(file.sync()).rejects.toThrow("EIO");
      await expect(file.close()).rejects.toThrow("EIO");
      expect(nth(disk.done, "cached sync")).toBe(0);
      expect([...disk.opened]).toEqual([]);
    }
  });
});

test("the disk is set to work once at a time, writes do not wait for it, sync and close do", async () => {
  for (const end of ["sync", "close"] as const) {
    const held = Promise.withResolvers<undefined>();
    const asked: string[] = [];
    const { file } = await open(({ name }) => {
      asked.push(name);
      return name === "cached datasync" ? held.promise : undefined;
    }, false);
    await file.write(FLUSHED, 0);
    await file.write(FLUSHED, 0);
    expect(nth(asked, "cached datasync")).toBe(1);
    const ended = file[end]();
    await new Promise(setImmediate);
    expect(asked).not.toContain(`cached ${end}`);
    held.resolve(undefined);
    await ended;
    expect(asked).toContain(`cached ${end}`);
  }
});

test("the disk is set to work again after as many bytes as before", async () => {
  const { file, disk } = await open(() => undefined, false);
  for (const [bytes, times] of [
    [FLUSHED, 1],
    [block(0), 1],
    [FLUSHED, 2],
  ] as const) {
    await file.write(bytes, 0);
    await new Promise(setImmediate);
    expect(nth(disk.done, "cached datasync")).toBe(times);
  }
  await file.close();
});

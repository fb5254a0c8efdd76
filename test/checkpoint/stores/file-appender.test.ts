import { afterAll, describe, expect, test } from "bun:test";
import { execFile } from "node:child_process";
import { type FileHandle, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import fc from "fast-check";
import { BLOCK } from "../../../checkpoint/stores/block-file.ts";
import {
  type AppendOptions,
  type FileAppender,
  fileAppender,
} from "../../../checkpoint/stores/file-appender.ts";
import { type FileSystem, nodeFileSystem } from "../../../checkpoint/stores/file-system.ts";
import { patternTensor } from "../states.ts";
import { type Script, type ScriptedFile, scriptedFile, systemError } from "./scripted-file.ts";
import { takesDirect } from "./takes-direct.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-appender-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const pathTo = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

const MOST_BUFFER = 4 * BLOCK;
const { bytes: DATA } = patternTensor("appended", "uint8", [16 * MOST_BUFFER]);
/** What `DATA` does not hold at the same place. */
const OTHER = DATA.map((byte) => byte ^ 0xff);

/** Runs the loop of events so many times. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
}

/** The real file system, and how many direct writes it did. */
function countedFileSystem(): { readonly fs: FileSystem; readonly direct: () => number } {
  let direct = 0;
  const fs = {
    ...nodeFileSystem,
    async open(path: string, flags: string | number): Promise<FileHandle> {
      const handle = await open(path, flags);
      const own = {
        async write(bytes: Uint8Array, offset: number, length: number, position: number) {
          const result = await handle.write(bytes, offset, length, position);
          direct += 1;
          return result;
        },
        close: () => handle.close(),
      };
      return own as unknown as FileHandle;
    },
  };
  return { fs: fs as unknown as FileSystem, direct: () => direct };
}

/** What is done with an appender: bytes to write, or a call. */
type Step = number | "flush" | "settled";

/** Who is shown the bytes from `begin` on, looks at them for some turns, and must find them unchanged. */
function watcher(begin: number, looks: number) {
  let end = begin;
  const ended: Promise<void>[] = [];
  const look = async (bytes: Uint8Array): Promise<void> => {
    const at = end;
    end += bytes.length;
    expect(bytes.buffer).toBeInstanceOf(SharedArrayBuffer);
    await turns(looks);
    expect(Buffer.compare(bytes, DATA.subarray(at, at + bytes.length))).toBe(0);
  };
  return {
    async seen(bytes: Uint8Array): Promise<void> {
      const looking = look(bytes);
      ended.push(looking);
      await looking;
    },
    /** Resolves to where what was shown ends. */
    async end(): Promise<number> {
      await Promise.all(ended);
      return end;
    },
  };
}

let files = 0;

describe("a file that is appended to", () => {
  const steps = fc.array(
    fc.oneof(
      { weight: 5, arbitrary: fc.integer({ min: 0, max: 3 * MOST_BUFFER }) },
      { weight: 1, arbitrary: fc.constantFrom(0, 1, BLOCK, MOST_BUFFER) },
      { weight: 2, arbitrary: fc.constantFrom<Step[]>("flush", "settled") },
    ),
    { maxLength: 5 },
  ) as fc.Arbitrary<Step[]>;
  const options = fc.record({
    begin: fc.oneof(
      fc.integer({ min: 0, max: MOST_BUFFER }),
      fc.constantFrom(0, BLOCK, 2 * BLOCK, BLOCK - 1),
    ),
    // Less than a block is a block.
    bufferBytes: fc.oneof(fc.integer({ min: BLOCK, max: MOST_BUFFER }), fc.constant(1)),
    depth: fc.integer({ min: 1, max: 3 }),
    direct: fc.boolean(),
    looks: fc.integer({ min: 0, max: 6 }),
  });

  test("holds what was written, with one write at a time at every moment a beginning of it, and each new byte is seen once", async () => {
    await fc.assert(
      fc.asyncProperty(steps, options, async (todo, { begin, looks, ...how }) => {
        const path = join(folder, `file-${files++}`);
        await writeFile(path, DATA.subarray(0, begin));
        const { seen, end: seenEnd } = watcher(begin, looks);
        const handle = await open(path, "r+");
        const appender = await fileAppender(nodeFileSystem, handle, path, begin, { ...how, seen });
        let end = begin;
        let flushed = begin;
        /** Looks at the file, which may hold what is being written, and must what was settled. */
        const look = async (least: number): Promise<void> => {
          const content = await readFile(path);
          if (how.depth > 1) return;
          expect(content.length).toBeGreaterThanOrEqual(least);
          expect(content.length).toBeLessThanOrEqual(end);
          expect(Buffer.compare(content, DATA.subarray(0, content.length))).toBe(0);
        };
        let settled = begin;
        for (const step of todo) {
          if (step === "flush" && how.depth > 1) continue;
          const from = end;
          if (typeof step === "number") end += step;
          // What is given may be used again.
          const given = DATA.slice(from, end);
          const done = typeof step === "number" ? appender.write(given) : appender[step]();
          await Promise.all([done, look(settled)]);
          given.fill(0);
          if (step === "flush") flushed = end;
          if (step === "settled") settled = flushed;
          await look(settled);
        }
        await Promise.all([appender.sync(), look(settled)]);
        expect(Buffer.compare(await readFile(path), DATA.subarray(0, end))).toBe(0);
        await appender.close();
        expect(Buffer.compare(await readFile(path), DATA.subarray(0, end))).toBe(0);
        expect(await seenEnd()).toBe(end);
        await rm(path);
      }),
      { numRuns: 150 },
    );
  });

  test("is written past the page cache where the system takes that, and nowhere else", async () => {
    const path = join(folder, "direct");
    const { fs, direct } = countedFileSystem();
    const appender = await fileAppender(fs, await open(path, "wx+"), path, 0, {
      direct: true,
      bufferBytes: BLOCK,
      depth: 2,
    });
    for (let at = 0; at < 10 * BLOCK + 1; at += 1000)
      await appender.write(DATA.subarray(at, Math.min(at + 1000, 10 * BLOCK + 1)));
    await appender.sync();
    await appender.close();
    expect(Buffer.compare(await readFile(path), DATA.subarray(0, 10 * BLOCK + 1))).toBe(0);
    expect(direct()).toBe((await takesDirect(folder)) ? 10 : 0);
  });
});

test("Deno appends the same bytes as Bun, and its hashing thread sees them", async () => {
  const deno = pathTo("../../../node_modules/.bin/deno");
  for (const command of [[deno, "run", "-A"], [process.execPath]]) {
    const own = await mkdtemp(join(folder, "smoke-"));
    const [program, ...args] = [...command, pathTo("./append-smoke.ts"), own];
    const { stdout } = await promisify(execFile)(program!, args);
    const [whole, appended, ...rest] = JSON.parse(stdout) as string[];
    expect(rest).toEqual([whole!, appended!, whole!, appended!]);
  }
}, 60_000);

const DEFAULTS: AppendOptions = { direct: true, bufferBytes: BLOCK, depth: 1 };

async function scripted(
  script: Script,
  options: Partial<AppendOptions> = {},
): Promise<{ appender: FileAppender; disk: ScriptedFile }> {
  const disk = scriptedFile(script);
  return { appender: await fileAppender(disk.fs, disk.handle, "file", 0, { ...DEFAULTS, ...options }), disk };
}

describe("operations", () => {
  test("that are settled are in the file, also while another write waits for them", async () => {
    const held = Promise.withResolvers<undefined>();
    const { appender, disk } = await scripted(({ name }) =>
      name === "direct write" ? held.promise : undefined,
    );
    await appender.write(DATA.subarray(0, BLOCK));
    const next = appender.write(DATA.subarray(BLOCK, 2 * BLOCK));
    let length = -1;
    const settled = appender.settled().then(() => {
      length = disk.content.length;
    });
    await turns(3);
    expect(length).toBe(-1);
    held.resolve(undefined);
    await Promise.all([next, settled]);
    expect(length).toBeGreaterThanOrEqual(BLOCK);
    await appender.close();
  });

  test("are as many at once as was asked for, and all of them end in the file", async () => {
    for (const depth of [1, 2, 3]) {
      let under = 0;
      let most = 0;
      const { appender, disk } = await scripted(
        async ({ name, length }) => {
          if (!name.endsWith("write")) return undefined;
          most = Math.max(most, ++under);
          await turns(3);
          under -= 1;
          return length;
        },
        { depth },
      );
      await appender.write(DATA.subarray(0, 12 * BLOCK));
      await appender.sync();
      await appender.close();
      expect(most).toBe(depth);
      expect(disk.content).toEqual(DATA.subarray(0, 12 * BLOCK));
    }
  });

  test("wait for who sees the bytes, so that memory stays bounded", async () => {
    const shown: PromiseWithResolvers<void>[] = [];
    const { appender } = await scripted(() => undefined, {
      seen: () => {
        const look = Promise.withResolvers<void>();
        shown.push(look);
        return look.promise;
      },
    });
    let written = false;
    const writing = appender.write(DATA.subarray(0, 32 * BLOCK)).then(() => {
      written = true;
    });
    await turns(40);
    const most = shown.length;
    expect(most).toBeLessThan(16);
    await turns(10);
    expect(shown.length).toBe(most);
    shown[0]!.resolve();
    await turns(10);
    expect(shown.length).toBe(most + 1);
    expect(written).toBe(false);
    for (let i = 1; i < 32; i++) {
      shown[i]?.resolve();
      await turns(2);
    }
    await writing;
    await appender.close();
  });

  test("that are under way end before the file is closed", async () => {
    const held = Promise.withResolvers<undefined>();
    const { appender, disk } = await scripted(({ name }) =>
      name === "direct write" ? held.promise : undefined,
    );
    await appender.write(DATA.subarray(0, BLOCK));
    const closed = appender.close();
    await turns(3);
    expect([...disk.opened].sort()).toEqual(["cached", "direct"]);
    held.resolve(undefined);
    await closed;
    expect([...disk.opened]).toEqual([]);
    expect(disk.content).toEqual(DATA.subarray(0, BLOCK));
  });

  test("that are refused as direct ones, in any order, leave the file right", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 8 }),
        fc.integer({ min: 1, max: 3 }),
        fc.constantFrom(systemError("EINVAL"), new TypeError("Invalid argument (os error 22)")),
        fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 8, maxLength: 8 }),
        async (from, depth, refusal, delays) => {
          let writes = 0;
          const { appender, disk } = await scripted(
            async ({ name, length }) => {
              if (name !== "direct write") return length;
              const at = writes++;
              await turns(delays[at % delays.length]!);
              if (at >= from) throw refusal;
              return length;
            },
            { depth },
          );
          await appender.write(DATA.subarray(0, 8 * BLOCK + 77));
          await appender.sync();
          await appender.close();
          expect(disk.content).toEqual(DATA.subarray(0, 8 * BLOCK + 77));
          expect([...disk.opened]).toEqual([]);
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe("a failure", () => {
  test("of a write is told by the next call that waits, at last by sync, by all after it, and close closes all", async () => {
    for (const way of ["direct", "cached"]) {
      for (const code of ["ENOSPC", "EIO"]) {
        for (const at of [0, 1, 3]) {
          for (const end of ["flush", "sync"] as const) {
            let writes = 0;
            const { appender, disk } = await scripted(
              ({ name }) => {
                if (name === `${way} write` && writes++ === at) throw systemError(code);
                return undefined;
              },
              { direct: way === "direct", depth: end === "flush" ? 1 : 2 },
            );
            const run = async (): Promise<void> => {
              await appender.write(DATA.subarray(0, 4 * BLOCK));
              await appender[end]();
              await appender.settled();
            };
            await expect(run()).rejects.toThrow(code);
            for (const call of [appender.write(DATA), appender.flush(), appender.settled(), appender.sync()])
              await expect(call).rejects.toThrow(code);
            await appender.close();
            expect([...disk.opened]).toEqual([]);
            expect(disk.done).not.toContain("cached sync");
          }
        }
      }
    }
  });

  test("of a sync is told", async () => {
    const { appender, disk } = await scripted(({ name }) => {
      if (name === "cached sync") throw systemError("EIO");
      return undefined;
    });
    await appender.write(DATA.subarray(0, 5));
    await expect(appender.sync()).rejects.toThrow("EIO");
    await appender.close();
    expect([...disk.opened]).toEqual([]);
  });

  test("of who sees the bytes is told", async () => {
    const { appender, disk } = await scripted(() => undefined, {
      seen: async () => {
        throw systemError("ENOSYS");
      },
    });
    const run = async (): Promise<void> => {
      for (let i = 0; i < 3; i++) await appender.write(DATA.subarray(0, BLOCK));
      await appender.sync();
    };
    await expect(run()).rejects.toThrow("ENOSYS");
    await appender.close();
    expect([...disk.opened]).toEqual([]);
  });

  test("to read the block that is not whole closes all", async () => {
    for (const direct of [true, false]) {
      const disk = scriptedFile(
        ({ name }) => {
          if (name === "cached read") throw systemError("EIO");
          return undefined;
        },
        DATA.subarray(0, 5),
      );
      const opening = fileAppender(disk.fs, disk.handle, "file", 5, { ...DEFAULTS, direct });
      await expect(opening).rejects.toThrow("EIO");
      expect([...disk.opened]).toEqual([]);
    }
  });

  test("does not take memory from who still looks at it", async () => {
    const bufferBytes = 3 * BLOCK;
    const shown: Uint8Array[] = [];
    const never = new Promise<void>(() => undefined);
    const { appender } = await scripted(
      ({ name }) => {
        if (name === "direct write") throw systemError("EIO");
        return undefined;
      },
      {
        bufferBytes,
        seen: (bytes) => {
          shown.push(bytes);
          return never;
        },
      },
    );
    await expect(appender.write(DATA.subarray(0, 3 * bufferBytes))).rejects.toThrow("EIO");
    await appender.close();
    const copies = shown.map((bytes) => bytes.slice());
    for (let i = 0; i < 3; i++) {
      const next = await scripted(() => undefined, { bufferBytes });
      await next.appender.write(OTHER.subarray(0, bufferBytes - 1));
      await next.appender.sync();
      expect(next.disk.content).toEqual(OTHER.subarray(0, bufferBytes - 1));
    }
    expect(shown.length).toBeGreaterThan(0);
    expect(shown.map((bytes, i) => Buffer.compare(bytes, copies[i]!))).toEqual(copies.map(() => 0));
  });
});

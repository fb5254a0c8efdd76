/**
 * A file system that asks before each operation which changes something: whoever is asked may fail it, or end the process,
 * before it or in its middle.
 *
 * @module
 */
import { constants } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { BLOCK } from "../../checkpoint/stores/block-file.ts";
import { type FileSystem, nodeFileSystem } from "../../checkpoint/stores/file-system.ts";

/** Asked before an operation; `half` does a part of it. */
export type Ask = (operation: string, half: () => Promise<unknown>) => Promise<void>;

const NOTHING = async (): Promise<void> => undefined;

/** The real file system behind `ask`. */
export function faultFileSystem(ask: Ask): FileSystem {
  const real = nodeFileSystem;
  const own = {
    ...real,
    async link(from: string, to: string): Promise<void> {
      await ask("link", NOTHING);
      await real.link(from, to);
    },
    async mkdir(path: string, options?: { recursive: boolean }): Promise<string | undefined> {
      await ask("mkdir", NOTHING);
      return await real.mkdir(path, options);
    },
    async open(path: string, flags: string | number): Promise<FileHandle> {
      const direct = typeof flags === "number" && (flags & (constants.O_DIRECT ?? 0)) !== 0;
      if (typeof flags === "string") await ask("create", NOTHING);
      if (direct) await ask("direct open", NOTHING);
      return handle(await real.open(path, flags), ask, direct);
    },
    async rename(from: string, to: string): Promise<void> {
      await ask("rename", NOTHING);
      await real.rename(from, to);
    },
    async rm(path: string, options?: { recursive?: boolean; force?: boolean }): Promise<void> {
      await ask("rm", async () => {
        const [first] = options?.recursive ? await readdir(path).catch(() => []) : [];
        if (first !== undefined) await rm(join(path, first));
      });
      await real.rm(path, options);
    },
    async writeFile(path: string, text: string, options: { flag: string }): Promise<void> {
      await ask("writeFile", () => real.writeFile(path, text.slice(0, text.length / 2), options));
      await real.writeFile(path, text, options);
    },
  };
  return own as unknown as FileSystem;
}

function handle(real: FileHandle, ask: Ask, direct: boolean): FileHandle {
  const write = direct ? "direct write" : "write";
  const own = {
    stat: () => real.stat(),
    read: real.read.bind(real),
    async write(bytes: Uint8Array, offset: number, length: number, position: number) {
      const half = length >> 1;
      await ask(write, () => real.write(bytes, offset, direct ? half - (half % BLOCK) : half, position));
      return await real.write(bytes, offset, length, position);
    },
    async sync(): Promise<void> {
      await ask("sync", NOTHING);
      await real.sync();
    },
    async datasync(): Promise<void> {
      await ask("datasync", NOTHING);
      await real.datasync();
    },
    close: () => real.close(),
  };
  return own as unknown as FileHandle;
}

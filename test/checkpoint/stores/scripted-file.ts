/**
 * A file in memory that is open twice, as one that is written past the page cache is: a test may hold up, cut short or
 * fail each operation. Direct writes must be of whole blocks, at whole blocks, from whole pages.
 *
 * @module
 */
import type { FileHandle } from "node:fs/promises";
import { BLOCK } from "../../../checkpoint/stores/block-file.ts";
import type { FileSystem } from "../../../checkpoint/stores/file-system.ts";

/** An operation that is about to be done. */
export interface Operation {
  /** For example `"direct write"`, `"cached sync"`. */
  readonly name: string;
  /** Of a write. */
  readonly length: number;
}

/** Asked before an operation: may fail it, hold it up, or answer how many bytes a write takes. */
export type Script = (operation: Operation) => Promise<number | undefined> | undefined;

/** A file as its writer sees it. */
export interface ScriptedFile {
  /** Opens it for direct writes, whatever the path. */
  readonly fs: FileSystem;
  /** Open for reading and writing. */
  readonly handle: FileHandle;
  /** What is in it. */
  readonly content: Uint8Array;
  /** Names of the operations that were done, in order. */
  readonly done: readonly string[];
  /** Handles that are open. */
  readonly opened: ReadonlySet<string>;
}

/** The error of a system call, by its code. */
export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made up`), { code });
}

/** A file that holds `content`. */
export function scriptedFile(script: Script, content: Uint8Array = new Uint8Array(0)): ScriptedFile {
  let bytes = content.slice();
  const done: string[] = [];
  const opened = new Set<string>();

  const act = async (name: string, length = 0): Promise<number> => {
    const answer = await script({ name, length });
    done.push(name);
    return answer ?? length;
  };
  const open = (way: string): FileHandle => {
    opened.add(way);
    const own = {
      async read(target: Uint8Array, offset: number, length: number, position: number) {
        await act(`${way} read`);
        const part = bytes.subarray(position, position + length);
        target.set(part, offset);
        return { bytesRead: part.length };
      },
      async write(source: Uint8Array, offset: number, length: number, position: number) {
        const aligned = [length, position, source.byteOffset + offset].every((at) => at % BLOCK === 0);
        if (way === "direct" && !aligned) throw systemError("EINVAL");
        const taken = await act(`${way} write`, length);
        const end = position + taken;
        if (end > bytes.length) {
          const longer = new Uint8Array(end);
          longer.set(bytes);
          bytes = longer;
        }
        bytes.set(source.subarray(offset, offset + taken), position);
        return { bytesWritten: taken };
      },
      sync: () => act(`${way} sync`),
      datasync: () => act(`${way} datasync`),
      async close() {
        // As the system does it: whatever it tells, the file is closed.
        opened.delete(way);
        await act(`${way} close`);
      },
    };
    return own as unknown as FileHandle;
  };
  const fs = {
    async open() {
      await act("direct open");
      return open("direct");
    },
  };
  return {
    fs: fs as unknown as FileSystem,
    handle: open("cached"),
    get content() {
      return bytes;
    },
    done,
    opened,
  };
}

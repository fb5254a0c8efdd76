/**
 * Bytes by their SHA-256, each stored once in a run: `HEX` is the content and `HEX.json` its length and block checksums.
 *
 * A committed checkpoint holds hard links to its blobs, so a blob with one link is one that no checkpoint needs. Such a
 * blob goes once no open save refers to it and it has lain for a grace period, in which a save may still take it up.
 *
 * @module
 */
import { link, lstat, open, readdir, readFile, rename, rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { BLOCK_BYTES, type FileDigest, hashFile } from "../digest.ts";
import type { StreamHasher } from "../hash-thread.ts";
import { errorCode, isMissing } from "../stores/directory-errors.ts";
import { syncDirectory } from "../stores/directory-files.ts";
import { createQueue } from "./queue.ts";

/** The blobs of one run. */
export interface Blobs {
  pathOf(sha256: string): string;
  /** What is known of a blob, or `undefined` when there is none. Keeps it for another grace period. */
  find(sha256: string): Promise<FileDigest | undefined>;
  /**
   * `find` for what is to become part of another checkpoint: the bytes are read once more, unless they were lately, and
   * when they have rotted there is no such blob any more.
   */
  findSound(sha256: string): Promise<FileDigest | undefined>;
  /** Takes in a finished, synced file by a link. What is there already is kept when it is sound. */
  adopt(path: string, digest: FileDigest): Promise<void>;
  /** Stores some bytes, durably. */
  put(bytes: Uint8Array): Promise<FileDigest>;
  /** Removes what nothing refers to and nobody touched for `graceSeconds`. @returns bytes freed. */
  sweep(isNeeded: (sha256: string) => boolean, now: number, graceSeconds: number): Promise<number>;
}

/** How long bytes that were read are taken to be the same. */
const CHECK_EVERY_MS = 60 * 60 * 1000;
const MOST_REMEMBERED = 100_000;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const digestSchema = v.strictObject({
  length: count,
  sha256: v.string(),
  crc32: v.array(count),
});

/** Opens the blobs in a folder, which exists. */
export function openBlobs(folder: string, now: () => number): Blobs {
  const pathOf = (sha256: string): string => join(folder, sha256);
  let made = 0;
  /** When this process last read all bytes of a blob. */
  const checkedAt = new Map<string, number>();
  const remember = (sha256: string): void => {
    checkedAt.delete(sha256);
    checkedAt.set(sha256, now());
    const [oldest] = checkedAt.keys();
    if (checkedAt.size > MOST_REMEMBERED && oldest !== undefined) checkedAt.delete(oldest);
  };
  // A blob that was found has another grace period before a sweep looks at it again.
  const queue = createQueue();

  const look = async (sha256: string): Promise<FileDigest | undefined> => {
    try {
      const seconds = now() / 1000;
      await utimes(pathOf(sha256), seconds, seconds);
      const text = await readFile(`${pathOf(sha256)}.json`, "utf8");
      return v.parse(v.pipe(v.string(), v.parseJson(), digestSchema), text);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  };
  const find = (sha256: string): Promise<FileDigest | undefined> => queue(() => look(sha256));

  const findSound = async (sha256: string): Promise<FileDigest | undefined> => {
    const found = await find(sha256);
    if (found === undefined || now() - (checkedAt.get(sha256) ?? Number.NEGATIVE_INFINITY) < CHECK_EVERY_MS) {
      return found;
    }
    const hasher = hashFile();
    await hashStored(pathOf(sha256), found.length, hasher);
    if (hasher.finish().sha256 === sha256) {
      remember(sha256);
      return found;
    }
    // Checkpoints that have it keep what they have; no other gets it.
    await rm(pathOf(sha256), { force: true });
    return undefined;
  };

  const adopt = async (path: string, digest: FileDigest): Promise<void> => {
    // What is known of a blob comes before it, so that a blob which is there is usable.
    if ((await findSound(digest.sha256)) === undefined) {
      const part = join(folder, `.part-${process.pid}-${made++}`);
      await writeFile(part, JSON.stringify(digest), { flush: true });
      await rename(part, `${pathOf(digest.sha256)}.json`);
    }
    await link(path, pathOf(digest.sha256)).catch((error: unknown) => {
      if (errorCode(error) !== "EEXIST") throw error;
    });
    remember(digest.sha256);
    await syncDirectory(folder);
    await find(digest.sha256);
  };

  return {
    pathOf,
    find,
    findSound,
    adopt,
    async put(bytes: Uint8Array): Promise<FileDigest> {
      const hasher = hashFile();
      hasher.update(bytes);
      const digest = hasher.finish();
      if ((await findSound(digest.sha256)) !== undefined) return digest;
      const part = join(folder, `.part-${process.pid}-${made++}`);
      await writeFile(part, bytes, { flush: true });
      await adopt(part, digest);
      await rm(part);
      return digest;
    },
    async sweep(isNeeded, at, graceSeconds): Promise<number> {
      let freed = 0;
      for (const entry of await readdir(folder)) {
        if (entry.endsWith(".json")) continue;
        freed += await queue(async () => {
          const path = join(folder, entry);
          const stat = await lstat(path).catch(() => undefined);
          if (stat === undefined || at - stat.mtimeMs < graceSeconds * 1000) return 0;
          if (stat.nlink > 1 || isNeeded(entry)) return 0;
          await rm(path, { force: true });
          await rm(`${path}.json`, { force: true });
          return stat.size;
        });
      }
      return freed;
    },
  };
}

/** Shows `hasher` the first `length` bytes of a file, in memory that does not depend on it. */
export async function hashStored(path: string, length: number, hasher: StreamHasher): Promise<void> {
  if (length === 0) return;
  const handle = await open(path, "r");
  try {
    // Shared, as who hashes may do it elsewhere.
    const buffer = new Uint8Array(new SharedArrayBuffer(BLOCK_BYTES));
    for (let at = 0; at < length; ) {
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, length - at), at);
      if (bytesRead === 0) break;
      await hasher.update(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
  } finally {
    await handle.close();
  }
}

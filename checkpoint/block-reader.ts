/**
 * Verified reads from a checkpoint: every block that a range touches is read whole and compared with its CRC-32 before
 * any byte of it is handed out. The last block stays at hand, since the next range often begins in it.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import type { CheckpointStore } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import type { ManifestFile } from "./manifest.ts";

/** Reads ranges of a checkpoint's files. */
export interface BlockReader {
  /**
   * Bytes `[begin, end)`, valid until the next call.
   *
   * @throws CheckpointError that names file and block when a block is damaged.
   */
  read(file: string, begin: number, end: number): Promise<Uint8Array>;
}

/** A reader over the files of checkpoint `name`, which `files` lists. */
export function blockReader(
  store: CheckpointStore,
  name: string,
  files: readonly ManifestFile[],
): BlockReader {
  const byName = new Map(files.map((file) => [file.name, file]));
  let cached: { file: string; block: number; bytes: Uint8Array } | undefined;

  return {
    async read(fileName: string, begin: number, end: number): Promise<Uint8Array> {
      const file = byName.get(fileName);
      if (file === undefined || begin < 0 || end > file.length || begin > end) {
        throw new CheckpointError(`checkpoint ${name}: no bytes ${begin} to ${end} of file ${fileName}`);
      }
      if (begin === end) return new Uint8Array(0);
      const firstBlock = Math.floor(begin / file.block);
      const from = firstBlock * file.block;
      const to = Math.min(Math.ceil(end / file.block) * file.block, file.length);
      const head = cached?.file === fileName && cached.block === firstBlock ? cached.bytes : undefined;
      const unread = from + (head?.length ?? 0);
      let bytes = head ?? new Uint8Array(0);
      if (unread < to) {
        const fresh = await store.read(name, fileName, unread, to);
        if (fresh.length !== to - unread) {
          throw new CheckpointError(
            `checkpoint ${name}: ${fileName}: ${fresh.length} bytes came, due are ${to - unread} from ${unread}`,
          );
        }
        for (const block of damagedBlocks(file, fresh, unread)) {
          throw new CheckpointError(
            `checkpoint ${name}: ${fileName}: block ${block} does not match its checksum`,
          );
        }
        bytes = head === undefined ? fresh : join(head, fresh);
      }
      const lastBlock = Math.floor((to - 1) / file.block);
      cached = { file: fileName, block: lastBlock, bytes: bytes.subarray(lastBlock * file.block - from) };
      return bytes.subarray(begin - from, end - from);
    },
  };
}

/** Which blocks of `bytes`, read from `begin` (the start of a block), differ from their checksums. */
export function damagedBlocks(file: ManifestFile, bytes: Uint8Array, begin: number): number[] {
  const damaged: number[] = [];
  for (let at = 0; at < bytes.length; at += file.block) {
    const block = (begin + at) / file.block;
    if (crc32(bytes.subarray(at, at + file.block)) !== file.crc32[block]) damaged.push(block);
  }
  return damaged;
}

function join(a: Uint8Array, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}

/**
 * Digests of files: SHA-256 of the whole, which names its content, and a CRC-32 per block of 1 MiB, by which a range can
 * be verified without reading the rest.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";

/** Bytes of a block; the last one of a file may be shorter. */
export const BLOCK_BYTES: number = 1024 * 1024;

/** What the blocks of a file tell of its bytes. */
export interface BlockDigest {
  readonly length: number;
  /** CRC-32 of each block, as unsigned integers. */
  readonly crc32: readonly number[];
}

/** What is known of a file's bytes. */
export interface FileDigest extends BlockDigest {
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/** Takes a file's bytes in order, in pieces of any size. */
export interface FileHasher<D extends BlockDigest = FileDigest> {
  update(bytes: Uint8Array): void;
  /** Call once, after the last byte. */
  finish(): D;
}

/** Starts the checksums of a file's blocks. */
export function hashBlocks(): FileHasher<BlockDigest> {
  const crcs: number[] = [];
  let length = 0;
  let crc = 0;
  return {
    update(bytes: Uint8Array): void {
      for (let at = 0; at < bytes.length; ) {
        const room = BLOCK_BYTES - (length % BLOCK_BYTES);
        const part = bytes.subarray(at, at + room);
        crc = crc32(part, crc);
        at += part.length;
        length += part.length;
        if (length % BLOCK_BYTES === 0) {
          crcs.push(crc);
          crc = 0;
        }
      }
    },
    finish(): BlockDigest {
      if (length % BLOCK_BYTES !== 0) crcs.push(crc);
      return { length, crc32: crcs };
    },
  };
}

/** Starts the digest of a file. */
export function hashFile(): FileHasher {
  const sha = createHash("sha256");
  const blocks = hashBlocks();
  return {
    update(bytes: Uint8Array): void {
      sha.update(bytes);
      blocks.update(bytes);
    },
    finish: () => ({ ...blocks.finish(), sha256: sha.digest("hex") }),
  };
}

/** SHA-256 of some bytes or text, in lower-case hexadecimal. */
export function sha256Hex(data: Uint8Array | string): string {
  return createHash("sha256").update(data).digest("hex");
}

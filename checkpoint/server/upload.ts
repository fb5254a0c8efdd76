/**
 * A resumable upload (draft-ietf-httpbis-resumable-upload): bytes are appended at the offset that the service holds, in
 * as many requests as it takes. What arrived stays, whatever cuts the connection. There is one writer: a new request
 * ends the one before it, whose client is gone or will be told.
 *
 * @module
 */
import { type FileHandle, open, stat, truncate } from "node:fs/promises";
import type { FileDigest, FileHasher } from "../digest.ts";
import { errorCode } from "../stores/directory-errors.ts";
import { hashStored } from "./blobs.ts";
import { type ByteSource, readBody } from "./body.ts";
import { Problem } from "./problem.ts";
import { createQueue, type Queue } from "./queue.ts";

/** Bytes collected before they are written. */
const WRITE_BYTES = 1024 * 1024;

/** Written bytes after which they are made durable. */
const FLUSH_BYTES = 32 * 1024 * 1024;

/** What a client said of an upload when it began it. */
export interface UploadSpec {
  readonly id: string;
  /** Name that the file gets in its save; without one it becomes a blob only. */
  readonly file?: string | undefined;
  readonly length?: number | undefined;
  readonly sha256?: string | undefined;
  readonly key?: string | undefined;
}

/** One append. */
export interface Append {
  readonly offset: number;
  readonly body: ByteSource;
  /** Most bytes of it. */
  readonly limit: number;
  /** How long it may send nothing, in seconds. */
  readonly idleSeconds: number;
  /** Checks the bytes of this append once all came. @throws Problem; then they are dropped. */
  readonly check?: (() => void) | undefined;
}

/** An upload in progress. */
export class Upload {
  readonly spec: UploadSpec;
  readonly path: string;
  /** Bytes held. */
  offset: number;
  /** Digest of the bytes held; absent when they were written by an earlier process or taken back. */
  #hasher: FileHasher | undefined;
  #writing: ByteSource | undefined;
  #unflushed = 0;
  #flushing: Promise<void> | undefined;
  #flushFailure: { readonly error: unknown } | undefined;
  readonly #queue: Queue = createQueue();

  constructor(spec: UploadSpec, path: string, offset: number, hasher: FileHasher | undefined) {
    this.spec = spec;
    this.path = path;
    this.offset = offset;
    this.#hasher = hasher;
  }

  /** Bytes that are still to come, as far as is known. */
  get due(): number {
    return Math.max(0, (this.spec.length ?? this.offset) - this.offset);
  }

  /** Ends the request that writes, if there is one. */
  stop(): void {
    this.#writing?.cancel();
  }

  /** Runs `task` when no request writes; one that does is ended. */
  exclusively<T>(task: () => Promise<T>): Promise<T> {
    this.stop();
    return this.#queue(task);
  }

  /** Appends a body; see `exclusively`. @throws Problem when the offset is another, or the body too long, cut or wrong. */
  async append(append: Append): Promise<void> {
    if (append.offset !== this.offset) {
      throw new Problem(
        "offset-mismatch",
        `the upload stands at ${this.offset}, given was ${append.offset}`,
        {
          fields: { expectedOffset: this.offset },
          headers: { "upload-offset": String(this.offset) },
        },
      );
    }
    this.#hasher ??= await hashStored(this.path, this.offset);
    this.#writing = append.body;
    const begin = this.offset;
    const handle = await open(this.path, "r+");
    let writing: Promise<void> = Promise.resolve();
    try {
      for await (const bytes of readBody(append.body, append, WRITE_BYTES)) {
        await writing;
        // Written while more is read: a sender that has to wait for the disk each time goes slow.
        writing = this.#write(handle, bytes);
        writing.catch(() => undefined);
      }
      await writing;
      append.check?.();
    } catch (error) {
      await writing.catch(() => undefined);
      if (error instanceof Problem && error.type === "content-digest") await this.#takeBack(begin);
      throw error;
    } finally {
      this.#writing = undefined;
      await handle.close();
    }
  }

  /** Makes all bytes durable. The upload takes no more. */
  async finish(): Promise<FileDigest> {
    this.#hasher ??= await hashStored(this.path, this.offset);
    await this.#flushing;
    if (this.#flushFailure !== undefined) throw this.#flushFailure.error;
    await syncFile(this.path);
    const digest = this.#hasher.finish();
    this.#hasher = undefined;
    return digest;
  }

  async #write(handle: FileHandle, bytes: Uint8Array): Promise<void> {
    const written = writeAt(handle, bytes, this.offset);
    // Hashed while the system writes.
    this.#hasher?.update(bytes);
    try {
      await written;
    } catch (error) {
      this.#hasher = undefined;
      throw error;
    }
    this.offset += bytes.length;
    this.#flush(bytes.length);
  }

  /** Sets the disk to work on what was written while more arrives: what `finish` waits for is then short. */
  #flush(bytes: number): void {
    this.#unflushed += bytes;
    if (this.#unflushed < FLUSH_BYTES || this.#flushing !== undefined) return;
    this.#unflushed = 0;
    this.#flushing = syncFile(this.path).then(
      () => {
        this.#flushing = undefined;
      },
      (error: unknown) => {
        // A later sync would not tell of it again.
        this.#flushFailure = { error };
        this.#flushing = undefined;
      },
    );
  }

  async #takeBack(offset: number): Promise<void> {
    await truncate(this.path, offset);
    this.offset = offset;
    this.#hasher = undefined;
  }
}

/** The upload whose bytes an earlier process left. */
export async function reopenUpload(spec: UploadSpec, path: string): Promise<Upload> {
  const { size } = await stat(path);
  return new Upload(spec, path, size, undefined);
}

async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r+");
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

async function writeAt(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  try {
    for (let at = 0; at < bytes.length; ) {
      at += (await handle.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
    }
  } catch (error) {
    if (errorCode(error) !== "ENOSPC" && errorCode(error) !== "EDQUOT") throw error;
    throw new Problem("storage", "the disk is full", { cause: error });
  }
}

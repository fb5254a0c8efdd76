/**
 * A resumable upload (draft-ietf-httpbis-resumable-upload): bytes are appended at the offset that the service holds, in
 * as many requests as it takes. What arrived stays, whatever cuts the connection. There is one writer: a new request
 * ends the one before it, whose client is gone or will be told.
 *
 * @module
 */
import { open, stat, truncate } from "node:fs/promises";
import { RUNTIME } from "../../core/runtime/runtime.ts";
import { type FileDigest, hashFile } from "../digest.ts";
import { freeChunk } from "../free-chunk.ts";
import { type StreamHasher, sharedHashThreads } from "../hash-thread.ts";
import { errorCode } from "../stores/directory-errors.ts";
import { type FileAppender, fileAppender } from "../stores/file-appender.ts";
import { nodeFileSystem } from "../stores/file-system.ts";
import { hashStored } from "./blobs.ts";
import type { ByteSource } from "./body.ts";
import { Problem } from "./problem.ts";
import { createQueue, type Queue } from "./queue.ts";

/** Bytes of one write, of which an upload has a few in memory: many uploads at once have smaller ones. */
const WRITE_BYTES = 4 * 1024 * 1024;
const CROWDED_WRITE_BYTES = 512 * 1024;
const CROWD = 8;
/** Files from this length on, or of unknown length, are hashed by another thread, and written past the page cache. */
const LARGE_BYTES = 4 * 1024 * 1024;

/** How long a request waits for the one that brings what is before its bytes: networks change their order. */
const EARLY_MS = 2000;

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
  /** Bytes of the body, where that is known. */
  readonly bytes: number | undefined;
  /** Most bytes of it. */
  readonly limit: number;
  /** How long it may send nothing, in seconds. */
  readonly idleSeconds: number;
  /** Checks the bytes of this append once all came. @throws Problem; then they are dropped. */
  readonly check?: (() => void) | undefined;
}

/** Uploads whose file is open. */
let writing = 0;

/** An upload in progress. */
export class Upload {
  readonly spec: UploadSpec;
  readonly path: string;
  /** Bytes in the file. */
  offset: number;
  /** Bytes that came: more than are in the file, while some are on their way to it. */
  #came: number;
  /** Where the upload will stand when all requests that wait have brought what they said; absent when none does, or did. */
  #promised: number | undefined;
  /** Resolves when that changes. */
  #change: PromiseWithResolvers<void> = Promise.withResolvers();
  /** Bodies that are or will be read. */
  readonly #bodies: Set<ByteSource> = new Set();
  readonly #queue: Queue = createQueue();
  #appender: FileAppender | undefined;
  /** Digest of the bytes that came; absent when an earlier process wrote them, or not all came into the file. */
  #hasher: StreamHasher | undefined;
  /** Set when what is in the file is not what came. */
  #broken = false;
  /** Set when the disk failed to keep what it had taken, of which it tells once. */
  #lost: { readonly error: unknown } | undefined;

  /** @param offset bytes that the file at `path` has; those were written by an earlier process. */
  constructor(spec: UploadSpec, path: string, offset = 0) {
    this.spec = spec;
    this.path = path;
    this.offset = offset;
    this.#came = offset;
  }

  /** Bytes that are still to come, as far as is known. */
  get due(): number {
    return Math.max(0, (this.spec.length ?? this.offset) - this.offset);
  }

  /**
   * Appends a body when its turn has come, and then runs `after`. A request that goes on where the one before it will end
   * waits for that one, so that a client can send several without waiting for answers; one that comes a little before it
   * too. Any other ends those that are there: their client is gone.
   *
   * @throws Problem when the offset is another, or the body too long, cut or wrong. What came before a cut is kept.
   */
  async append<T>(append: Append, after: (written: Promise<void>) => Promise<T>): Promise<T> {
    const { offset, body, bytes } = append;
    await this.#predecessor(offset);
    // What is sent again by the network, not by the client, must not end what the client sends.
    if (offset < this.offset) throw this.#mismatch(offset);
    if (offset !== this.#promised) this.stop();
    this.#promise(bytes === undefined ? undefined : offset + bytes);
    this.#bodies.add(body);
    try {
      return await this.#queue(async () => await after((await this.#take(append)).written));
    } finally {
      this.#bodies.delete(body);
      if (this.#bodies.size === 0) {
        this.#promise(undefined);
        await this.#queue(() => this.#rest());
      }
    }
  }

  /** Runs `task` when no request appends; those that do or would are ended. */
  exclusively<T>(task: () => Promise<T>): Promise<T> {
    this.stop();
    return this.#queue(async () => {
      await this.#close();
      return await task();
    });
  }

  /** Ends the requests that append. */
  stop(): void {
    for (const body of this.#bodies) body.cancel();
  }

  /** Makes all bytes durable; call in `after` of the last append, or exclusively. The upload takes no more. */
  async finish(): Promise<FileDigest> {
    await this.#close();
    const hasher = await this.#hashHeld();
    if (this.#lost !== undefined) throw this.#lost.error;
    await syncFile(this.path);
    const digest = await hasher.finish();
    this.#hasher = undefined;
    return digest;
  }

  /** Ends it: lets go of all but the file. */
  drop(): void {
    this.stop();
    this.#forget();
  }

  /** Waits a moment for the request that brings what is before `offset`, if it has not come. */
  async #predecessor(offset: number): Promise<void> {
    const deadline = performance.now() + EARLY_MS;
    while (offset > (this.#promised ?? this.#came)) {
      const left = deadline - performance.now();
      if (left <= 0) return;
      const timer = Promise.withResolvers<void>();
      const timeout = setTimeout(timer.resolve, left);
      await Promise.race([this.#change.promise, timer.promise]);
      clearTimeout(timeout);
    }
  }

  #promise(offset: number | undefined): void {
    this.#promised = offset;
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  #mismatch(offset: number): Problem {
    const stands = this.#came;
    return new Problem("offset-mismatch", `the upload stands at ${stands}, given was ${offset}`, {
      fields: { expectedOffset: stands },
      headers: { "upload-offset": String(stands) },
    });
  }

  /** Takes a body in. Returns when all of it came; `written` tells when it is in the file. */
  async #take(append: Append): Promise<{ readonly written: Promise<void> }> {
    if (this.#broken) await this.#close();
    const begin = this.#came;
    if (append.offset !== begin) throw this.#mismatch(append.offset);
    const appender = await this.#open();
    try {
      const failure = await this.#read(append, appender);
      await appender.flush();
      if (failure !== undefined) {
        await this.#settle(appender);
        throw failure.error;
      }
      append.check?.();
    } catch (error) {
      if (!(error instanceof Problem)) throw await this.#break(error);
      if (error.type === "content-digest") await this.#takeBack(begin);
      throw error;
    }
    const written = this.#settle(appender).catch((error: unknown) => {
      this.#broken = true;
      throw storageProblem(error);
    });
    // Who waits for it meets its failure.
    written.catch(() => undefined);
    return { written };
  }

  /** Hands a body to the appender. @returns what ended it, if it did not end by itself. */
  async #read(
    { body, limit, idleSeconds }: Append,
    appender: FileAppender,
  ): Promise<{ readonly error: unknown } | undefined> {
    for (let left = limit; ; ) {
      let bytes: Uint8Array | undefined;
      try {
        bytes = await body.read(idleSeconds);
      } catch (error) {
        return { error };
      }
      if (bytes === undefined) return undefined;
      left -= bytes.length;
      if (left < 0) {
        return { error: new Problem("too-large", `the body exceeds ${limit} bytes`, { fields: { limit } }) };
      }
      const { length } = bytes;
      await appender.write(bytes);
      freeChunk(bytes);
      this.#came += length;
    }
  }

  /** Resolves when what came so far is in the file. */
  async #settle(appender: FileAppender): Promise<void> {
    const came = this.#came;
    await appender.settled();
    this.offset = Math.max(this.offset, came);
  }

  async #open(): Promise<FileAppender> {
    if (this.#appender !== undefined) return this.#appender;
    const hasher = await this.#hashHeld();
    const handle = await open(this.path, "r+");
    this.#appender = await fileAppender(nodeFileSystem, handle, this.path, this.#came, {
      direct: this.#isLarge,
      bufferBytes: writing > CROWD ? CROWDED_WRITE_BYTES : WRITE_BYTES,
      // What a killed service leaves must be the beginning of what was sent.
      depth: 1,
      seen: async (bytes) => await hasher.update(bytes),
    });
    writing++;
    return this.#appender;
  }

  /** Closes the file when nobody is about to append more. */
  async #rest(): Promise<void> {
    if (this.#bodies.size === 0) await this.#close();
  }

  /** Closes the file; then it holds `offset` bytes. */
  async #close(): Promise<void> {
    const appender = this.#appender;
    this.#appender = undefined;
    try {
      if (appender !== undefined && !this.#broken) await this.#settle(appender);
    } catch {
      this.#broken = true;
    }
    if (appender !== undefined) {
      writing--;
      await appender.close().catch((error: unknown) => {
        this.#lost = { error };
      });
    }
    if (!this.#broken) return;
    // What is in the file is the beginning of what came; nobody else remembers how much.
    this.#forget();
    this.offset = (await stat(this.path)).size;
    this.#came = this.offset;
    this.#broken = false;
  }

  /** What is told of a failed write. */
  async #break(error: unknown): Promise<unknown> {
    this.#broken = true;
    await this.#close();
    return storageProblem(error);
  }

  async #takeBack(offset: number): Promise<void> {
    await this.#close();
    this.#forget();
    await truncate(this.path, offset);
    this.offset = offset;
    this.#came = offset;
  }

  /** Whether it is worth another thread, and writing past the page cache. Deno writes shared memory at a tenth of the rate. */
  get #isLarge(): boolean {
    return RUNTIME.name === "bun" && (this.spec.length ?? Number.POSITIVE_INFINITY) >= LARGE_BYTES;
  }

  async #hashHeld(): Promise<StreamHasher> {
    if (this.#hasher === undefined) {
      const hasher = this.#isLarge ? sharedHashThreads.hashFile() : hashFile();
      await hashStored(this.path, this.offset, hasher);
      this.#hasher = hasher;
    }
    return this.#hasher;
  }

  #forget(): void {
    this.#hasher?.drop?.();
    this.#hasher = undefined;
  }
}

function storageProblem(error: unknown): unknown {
  if (errorCode(error) !== "ENOSPC" && errorCode(error) !== "EDQUOT") return error;
  return new Problem("storage", "the disk is full", { cause: error });
}

/** The upload whose bytes an earlier process left. */
export async function reopenUpload(spec: UploadSpec, path: string): Promise<Upload> {
  const { size } = await stat(path);
  return new Upload(spec, path, size);
}

async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r+");
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

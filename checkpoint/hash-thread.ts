/**
 * Hashing in a thread of its own: `hashFile` for whoever must not hold up its own thread. Shared memory is hashed where it
 * lies, other memory is copied on the way.
 *
 * @module
 */
import { Worker } from "node:worker_threads";
import { CheckpointError } from "../core/contracts/errors.ts";
import type { BlockDigest, FileDigest } from "./digest.ts";
import type { HashMessage } from "./hash-worker.ts";

/** `FileHasher`, or one that works elsewhere: bytes given to `update` are its own until that resolves. */
export interface StreamHasher<D extends BlockDigest = FileDigest> {
  update(bytes: Uint8Array): void | Promise<void>;
  finish(): D | Promise<D>;
  /** Gives it up before its end. */
  drop?(): void;
}

/** A thread that hashes several files at a time, in the order in which their bytes come. */
export interface HashThread {
  /** Starts the digest of a file. */
  hashFile(): Required<StreamHasher>;
  close(): Promise<void>;
}

/**
 * Starts the thread, which does not keep the process alive while it has nothing to do.
 *
 * @param ended called when it ends, whyever
 */
export function startHashThread(ended: () => void = () => undefined): HashThread {
  const worker = new Worker(new URL("./hash-worker.ts", import.meta.url));
  const waiting: PromiseWithResolvers<unknown>[] = [];
  let begun = 0;
  let failure: CheckpointError | undefined;
  const fail = (problem: string): void => {
    failure ??= new CheckpointError(`the hashing thread ended: ${problem}`);
    for (const { reject } of waiting.splice(0)) reject(failure);
    ended();
  };
  worker.on("message", (answer: unknown) => {
    waiting.shift()?.resolve(answer);
    if (waiting.length === 0) worker.unref();
  });
  worker.on("error", (error: unknown) => fail(String(error)));
  worker.on("exit", (code) => fail(`exit code ${code}`));
  worker.unref();

  const ask = async (message: HashMessage): Promise<unknown> => {
    if (failure !== undefined) throw failure;
    const answer = Promise.withResolvers<unknown>();
    waiting.push(answer);
    worker.ref();
    worker.postMessage(message);
    return await answer.promise;
  };
  return {
    hashFile: () => {
      const stream = begun++;
      let dropped = false;
      return {
        async update(bytes: Uint8Array): Promise<void> {
          if (dropped) return;
          const { buffer, byteOffset, length } = isShared(bytes) ? bytes : sharedCopy(bytes);
          await ask({ stream, bytes: [buffer, byteOffset, length] });
        },
        finish: async () => (await ask({ stream })) as FileDigest,
        drop(): void {
          dropped = true;
          // A thread that ended has nothing to give up.
          ask({ stream, drop: true }).catch(() => undefined);
        },
      };
    },
    async close(): Promise<void> {
      await worker.terminate();
    },
  };
}

function isShared(bytes: Uint8Array): bytes is Uint8Array<SharedArrayBuffer> {
  return bytes.buffer instanceof SharedArrayBuffer;
}

function sharedCopy(bytes: Uint8Array): Uint8Array<SharedArrayBuffer> {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}

let shared: HashThread | undefined;

/** The thread that all of this process use who have none of their own. Started by its first use, and again when it ended. */
export function sharedHashThread(): HashThread {
  shared ??= startHashThread(() => {
    shared = undefined;
  });
  return shared;
}

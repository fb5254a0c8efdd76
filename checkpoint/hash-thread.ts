/**
 * Hashing in a thread of its own: `hashFile` for whoever must not hold up its own thread. Shared memory is hashed where it
 * lies, other memory is copied on the way.
 *
 * @module
 */
import { Worker } from "node:worker_threads";
import { CheckpointError } from "../core/contracts/errors.ts";
import type { FileDigest } from "./digest.ts";

/** `FileHasher`, or one that works elsewhere: bytes given to `update` are its own until that resolves. */
export interface StreamHasher {
  update(bytes: Uint8Array): void | Promise<void>;
  finish(): FileDigest | Promise<FileDigest>;
}

/** A thread that hashes one file after the other. */
export interface HashThread {
  /** Starts the digest of a file; the one before must have been finished. */
  hashFile(): StreamHasher;
  close(): Promise<void>;
}

/** Starts the thread, which does not keep the process alive while it has nothing to do. */
export function startHashThread(): HashThread {
  const worker = new Worker(new URL("./hash-worker.ts", import.meta.url));
  const waiting: PromiseWithResolvers<unknown>[] = [];
  let failure: CheckpointError | undefined;
  const fail = (problem: string): void => {
    failure ??= new CheckpointError(`the hashing thread ended: ${problem}`);
    for (const { reject } of waiting.splice(0)) reject(failure);
  };
  worker.on("message", (answer: unknown) => {
    waiting.shift()?.resolve(answer);
    if (waiting.length === 0) worker.unref();
  });
  worker.on("error", (error: unknown) => fail(String(error)));
  worker.on("exit", (code) => fail(`exit code ${code}`));
  worker.unref();

  const ask = async (message: Uint8Array | null): Promise<unknown> => {
    if (failure !== undefined) throw failure;
    const answer = Promise.withResolvers<unknown>();
    waiting.push(answer);
    worker.ref();
    worker.postMessage(message);
    return await answer.promise;
  };
  return {
    hashFile: () => {
      // What a file that was given up left in the thread goes with its first answer.
      let begun: Promise<unknown> | undefined;
      const begin = async (): Promise<void> => {
        begun ??= ask(null);
        await begun;
      };
      return {
        async update(bytes: Uint8Array): Promise<void> {
          await begin();
          await ask(bytes);
        },
        async finish(): Promise<FileDigest> {
          await begin();
          return (await ask(null)) as FileDigest;
        },
      };
    },
    async close(): Promise<void> {
      await worker.terminate();
    },
  };
}

/**
 * Hashing in a thread of its own: `hashFile` for whoever must not hold up its own thread. Shared memory is hashed where it
 * lies, other memory is copied on the way.
 *
 * @module
 */
import { Worker } from "node:worker_threads";
import { CheckpointError } from "../core/contracts/errors.ts";
import { cpuCount } from "../core/runtime/runtime.ts";
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

/** Threads that hash, started as they are needed: more than `most` streams share them. */
export function hashThreads(
  most: number,
  start: typeof startHashThread = startHashThread,
): Pick<HashThread, "hashFile"> {
  const threads = new Set<{ readonly thread: HashThread; streams: number }>();
  const leastBusy = (): { readonly thread: HashThread; streams: number } => {
    const [least] = [...threads].sort((a, b) => a.streams - b.streams);
    if (least !== undefined && (least.streams === 0 || threads.size >= most)) return least;
    const entry = { thread: start(() => threads.delete(entry)), streams: 0 };
    threads.add(entry);
    return entry;
  };
  return {
    hashFile: () => {
      const entry = leastBusy();
      const stream = entry.thread.hashFile();
      let open = true;
      const end = (): void => {
        if (open) entry.streams--;
        open = false;
      };
      entry.streams++;
      return {
        update: (bytes) => stream.update(bytes),
        finish: async () => await Promise.resolve(stream.finish()).finally(end),
        drop(): void {
          end();
          stream.drop();
        },
      };
    },
  };
}

/** Where all of this process hash who have no thread of their own. Half of the cores is for what brings the bytes. */
export const sharedHashThreads: Pick<HashThread, "hashFile"> = hashThreads(
  Math.max(1, Math.min(4, Math.floor(cpuCount() / 2))),
);

/**
 * A thread that hashes what it is shown, stream by stream. Answers each message in order: to bytes that they are no longer
 * needed, to the end of a stream with the digest of all its bytes.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { type FileHasher, hashFile } from "./digest.ts";

/** What the thread is told: bytes of a stream, its end, or that it is given up. */
export interface HashMessage {
  readonly stream: number;
  /** As memory, begin and length: Deno takes 50 ms for each MiB of a view. */
  readonly bytes?: readonly [memory: SharedArrayBuffer, begin: number, length: number];
  readonly drop?: boolean;
}

const port = parentPort!;
const streams = new Map<number, FileHasher>();

port.on("message", ({ stream, bytes, drop }: HashMessage) => {
  let hasher = streams.get(stream);
  if (hasher === undefined) {
    hasher = hashFile();
    streams.set(stream, hasher);
  }
  if (bytes !== undefined) {
    hasher.update(new Uint8Array(...bytes));
    port.postMessage(null);
    return;
  }
  streams.delete(stream);
  port.postMessage(drop === true ? null : hasher.finish());
});

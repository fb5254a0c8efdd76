/**
 * A thread that hashes what it is shown, chunk by chunk, so that training does not stand still for it. Answers each message
 * in order: to bytes that they are no longer needed, to `null` with the digest of all since the last one.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { hashFile } from "./digest.ts";

const port = parentPort!;
let hasher = hashFile();

port.on("message", (bytes: Uint8Array | null) => {
  if (bytes === null) {
    port.postMessage(hasher.finish());
    hasher = hashFile();
  } else {
    hasher.update(bytes);
    port.postMessage(null);
  }
});

/**
 * One opener of adapters at a time in this process, its threads included: which adapter comes first is said through the
 * environment, and that is the process's.
 *
 * Threads share no memory here, so the lock is a folder named after the process; one left by a process of the same
 * number that died is broken after a while.
 *
 * @module
 */

import { mkdirSync, rmdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

const STALE_MS = 60_000;
const RETRY_MS = 5;

/** Runs `action` while no other call in this process runs its own. */
export async function exclusively<T>(action: () => Promise<T>): Promise<T> {
  const folder = join(tmpdir(), `fsdp-adapter-${process.pid}`);
  while (!taken(folder)) await sleep(RETRY_MS);
  try {
    return await action();
  } finally {
    rmdirSync(folder);
  }
}

function taken(folder: string): boolean {
  try {
    mkdirSync(folder);
    return true;
  } catch {
    breakStale(folder);
    return false;
  }
}

function breakStale(folder: string): void {
  try {
    if (Date.now() - statSync(folder).mtimeMs > STALE_MS) rmdirSync(folder);
  } catch {
    // Gone already: the next try takes it.
  }
}

/**
 * What dead saves leave behind, and when it may go. A hidden folder is removed once its owner, a process of this host,
 * is gone, or when nothing in it changed for a day (owner on another host, or unknown). Erring on the side of keeping:
 * a reused process id keeps a folder until the day is over.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { errorCode } from "./directory-errors.ts";
import type { FileSystem } from "./file-system.ts";

const OWNER_FILE = ".owner";
const ABANDONED_AFTER_MS = 24 * 60 * 60 * 1000;
/** A dead owner's folder must also have been still this long: containers may share a host name and not their processes. */
const STILL_MS = 60 * 1000;

const ownerSchema = v.strictObject({
  /** Digest of the host's name, not the name itself. */
  host: v.pipe(v.string(), v.hexadecimal()),
  pid: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
});

/** Notes in a transaction's folder which process it belongs to. */
export async function recordOwner(fs: FileSystem, folder: string): Promise<void> {
  const owner = JSON.stringify({ host: hostDigest(), pid: process.pid });
  await fs.writeFile(join(folder, OWNER_FILE), owner, { flag: "wx" });
}

/** Takes the note away, before the folder becomes a checkpoint. */
export async function dropOwner(fs: FileSystem, folder: string): Promise<void> {
  await fs.rm(join(folder, OWNER_FILE), { force: true });
}

/** Removes folders of dead saves, and of deletions that were cut short. A folder that cannot be removed stays. */
export async function sweepLeftovers(fs: FileSystem, root: string): Promise<void> {
  for (const entry of await fs.readdir(root, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const folder = join(root, entry.name);
    const stale =
      entry.name.startsWith(".trash-") || (entry.name.startsWith(".tmp-") && (await isAbandoned(fs, folder)));
    if (stale) await fs.rm(folder, { recursive: true, force: true }).catch(() => undefined);
  }
}

async function isAbandoned(fs: FileSystem, folder: string): Promise<boolean> {
  try {
    let newest = (await fs.lstat(folder)).mtimeMs;
    for (const file of await fs.readdir(folder))
      newest = Math.max(newest, (await fs.lstat(join(folder, file))).mtimeMs);
    const age = Date.now() - newest;
    return age > ABANDONED_AFTER_MS || (age > STILL_MS && (await ownerIsGone(fs, folder)));
  } catch {
    // It changed while being looked at: somebody is alive.
    return false;
  }
}

async function ownerIsGone(fs: FileSystem, folder: string): Promise<boolean> {
  const text = await fs.readFile(join(folder, OWNER_FILE), "utf8");
  const owner = v.parse(v.pipe(v.string(), v.parseJson(), ownerSchema), text);
  if (owner.host !== hostDigest()) return false;
  try {
    process.kill(owner.pid, 0);
    return false;
  } catch (error) {
    return errorCode(error) === "ESRCH";
  }
}

function hostDigest(): string {
  return createHash("sha256").update(hostname()).digest("hex");
}

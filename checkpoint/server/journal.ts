/**
 * The journal of one save: a line of JSON for everything that happened to it, in order. The service's memory of an open
 * save is what replaying these lines gives, so that a service which was killed goes on where it was.
 *
 * A line is handed to the system before its effect is told to anybody. It survives the process; what must survive the
 * machine, a commit, does not depend on it.
 *
 * @module
 */
import { appendFile, readFile, writeFile } from "node:fs/promises";
import * as v from "valibot";
import { isStoreName } from "../stores/names.ts";

/** What began a save. */
export interface BeginEntry {
  readonly type: "begin";
  readonly id: string;
  /** Of the checkpoint to be. */
  readonly name: string;
  readonly step?: number | undefined;
  readonly worldSize?: number | undefined;
  /** `"auto"`: the last rank's manifest commits. */
  readonly commit: "explicit" | "auto";
  readonly labels: Readonly<Record<string, string>>;
  /** Idempotency key of the request. */
  readonly key?: string | undefined;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  readonly expiresAt: number;
}

/** One line. */
export type JournalEntry =
  | BeginEntry
  | {
      readonly type: "upload";
      readonly id: string;
      readonly file?: string | undefined;
      readonly length?: number | undefined;
      readonly sha256?: string | undefined;
      readonly key?: string | undefined;
    }
  | { readonly type: "drop"; readonly id: string }
  | {
      readonly type: "file";
      /** Absent for an upload without a name. */
      readonly file?: string | undefined;
      readonly sha256: string;
      readonly length: number;
      /** The upload that it was. */
      readonly upload?: string | undefined;
    }
  | { readonly type: "remove"; readonly file: string }
  /** The folder `inode` is about to become the checkpoint. */
  | { readonly type: "committing"; readonly inode: string; readonly sha256: string }
  | { readonly type: "committed"; readonly sha256: string; readonly at: number }
  | { readonly type: "aborted"; readonly at: number };

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const file = v.pipe(v.string(), v.check(isStoreName));
const id = v.pipe(v.string(), v.uuid());
const key = v.optional(v.string());

const entrySchema: v.GenericSchema<unknown, JournalEntry> = v.variant("type", [
  v.strictObject({
    type: v.literal("begin"),
    id,
    name: file,
    step: v.optional(count),
    worldSize: v.optional(count),
    commit: v.picklist(["explicit", "auto"]),
    labels: v.record(v.string(), v.string()),
    key,
    createdAt: count,
    expiresAt: count,
  }),
  v.strictObject({
    type: v.literal("upload"),
    id,
    file: v.optional(file),
    length: v.optional(count),
    sha256: v.optional(sha256),
    key,
  }),
  v.strictObject({ type: v.literal("drop"), id }),
  v.strictObject({
    type: v.literal("file"),
    file: v.optional(file),
    sha256,
    length: count,
    upload: v.optional(id),
  }),
  v.strictObject({ type: v.literal("remove"), file }),
  v.strictObject({ type: v.literal("committing"), inode: v.string(), sha256 }),
  v.strictObject({ type: v.literal("committed"), sha256, at: count }),
  v.strictObject({ type: v.literal("aborted"), at: count }),
]);

/** Adds a line. */
export async function appendJournal(path: string, entry: JournalEntry): Promise<void> {
  await appendFile(path, `${JSON.stringify(entry)}\n`);
}

/** All whole lines up to the first that is none: a service that was killed may have left half a line, which is cut off. */
export async function reopenJournal(path: string): Promise<readonly JournalEntry[]> {
  const text = await readFile(path, "utf8");
  const entries: JournalEntry[] = [];
  let sound = 0;
  for (const line of text.split("\n")) {
    const result = v.safeParse(v.pipe(v.string(), v.parseJson(), entrySchema), line);
    if (!result.success) break;
    entries.push(result.output);
    sound += Buffer.byteLength(line) + 1;
  }
  if (sound !== Buffer.byteLength(text)) {
    // A last line without its end is whole all the same.
    await writeFile(path, entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
  }
  return entries;
}

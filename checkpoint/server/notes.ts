/**
 * What is noted of a committed checkpoint beside its immutable content: whether it is pinned, its labels and metrics.
 *
 * @module
 */
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { isMissing } from "../stores/directory-errors.ts";

const noteName = v.pipe(v.string(), v.regex(/^[A-Za-z][A-Za-z0-9._-]{0,63}$/));
const MOST = 64;

/** Labels: a few short texts by name. */
export const labelsSchema: v.GenericSchema<Record<string, string>> = v.pipe(
  v.record(noteName, v.pipe(v.string(), v.maxLength(256))),
  v.check((labels) => Object.keys(labels).length <= MOST, `at most ${MOST} labels`),
);

/** Metrics: a few finite numbers by name, such as a loss that was evaluated after the save. */
export const metricsSchema: v.GenericSchema<Record<string, number>> = v.pipe(
  v.record(noteName, v.pipe(v.number(), v.finite())),
  v.check((metrics) => Object.keys(metrics).length <= MOST, `at most ${MOST} metrics`),
);

/** A note. */
export interface Note {
  /** Counts changes; 0 when there was none. */
  readonly revision: number;
  /** A pinned checkpoint cannot be deleted. */
  readonly pinned: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly metrics: Readonly<Record<string, number>>;
}

/** The notes of one run. */
export interface Notes {
  read(name: string): Promise<Note>;
  write(name: string, note: Note): Promise<void>;
  remove(name: string): Promise<void>;
}

const noteSchema = v.strictObject({
  revision: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  pinned: v.boolean(),
  labels: labelsSchema,
  // Notes of earlier versions have none.
  metrics: v.optional(metricsSchema, {}),
});

const NONE: Note = Object.freeze({ revision: 0, pinned: false, labels: {}, metrics: {} });

/** Notes in a folder, which exists. */
export function createNotes(folder: string): Notes {
  const path = (name: string): string => join(folder, `${name}.json`);
  return {
    async read(name: string): Promise<Note> {
      try {
        const text = await readFile(path(name), "utf8");
        return v.parse(v.pipe(v.string(), v.parseJson(), noteSchema), text);
      } catch (error) {
        if (isMissing(error)) return NONE;
        throw error;
      }
    },
    async write(name: string, note: Note): Promise<void> {
      await writeFile(`${path(name)}.part`, JSON.stringify(note), { flush: true });
      await rename(`${path(name)}.part`, path(name));
    },
    remove: (name: string) => rm(path(name), { force: true }),
  };
}

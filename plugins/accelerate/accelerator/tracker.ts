/**
 * Trackers: where a run's figures go. The built-in one writes JSON lines.
 *
 * @module
 */
import { appendFile, mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { ConfigError } from "../../../core/contracts/errors.ts";

/** A figure. What is not finite becomes null in JSON. */
export type LoggedValue = string | number | boolean | null;

/** Takes a run's figures, on the main process alone. */
export interface Tracker {
  log(values: Readonly<Record<string, LoggedValue>>, step: number | undefined): void | Promise<void>;
  /** The run is over. */
  finish?(): void | Promise<void>;
}

/**
 * Writes one JSON object a line.
 *
 * @param path its folder is made; a file that is there goes on when the run does, and otherwise begins anew.
 * @param resumed asked at the first line.
 */
export function jsonlTracker(path: string, resumed: () => boolean): Tracker {
  let begun = false;
  return {
    async log(values, step) {
      const line = `${JSON.stringify(step === undefined ? values : { step, ...values })}\n`;
      try {
        if (!begun) {
          await mkdir(dirname(path), { recursive: true });
          if (!resumed()) await writeFile(path, "");
          begun = true;
        }
        await appendFile(path, line);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        throw new ConfigError(`cannot log: given "${path}", which cannot be written (${code})`, {
          cause: error,
        });
      }
    },
  };
}

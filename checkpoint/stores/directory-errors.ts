/**
 * File-system errors as checkpoint errors.
 *
 * @module
 */
import { CheckpointError } from "../../core/contracts/errors.ts";

/** The code of a file-system error, for example `"ENOENT"`. */
export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** Whether something is not there. */
export function isMissing(error: unknown): boolean {
  return errorCode(error) === "ENOENT";
}

/** What a rename answers when something stands at its target. */
const TAKEN: ReadonlySet<string | undefined> = new Set(["ENOTEMPTY", "EEXIST", "ENOTDIR", "EISDIR", "EPERM"]);

/** Whether a rename was refused because something stands at its target. */
export function isTaken(error: unknown): boolean {
  return TAKEN.has(errorCode(error));
}

/** A checkpoint error that says what was being done and what came of it. */
export function storeError(what: string, error: unknown): CheckpointError {
  const reason = error instanceof Error ? error.message : String(error);
  return new CheckpointError(`${what}: ${reason}`, { cause: error });
}

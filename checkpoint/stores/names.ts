/**
 * Names of checkpoints and of files in them. One rule for every store and host: lower case, no separator, no leading
 * dot, no `..`, so that a name can never leave its folder or collide with another by case.
 *
 * @module
 */
import { CheckpointError } from "../../core/contracts/errors.ts";

/** The file whose presence makes a folder a checkpoint. */
export const MANIFEST_FILE = "manifest.msgpack";

const PATTERN = /^[a-z0-9][a-z0-9._-]{0,127}$/;

/** Whether a name follows the rule. */
export function isStoreName(name: string): boolean {
  return PATTERN.test(name) && !name.includes("..") && !name.endsWith(".");
}

/** @throws CheckpointError unless the name follows the rule. */
export function checkStoreName(what: string, name: string): void {
  if (isStoreName(name)) return;
  const given = JSON.stringify(name.slice(0, 140));
  throw new CheckpointError(
    `${what} name: ${given}, allowed is ${PATTERN.source} without ".." or a final dot`,
  );
}

/** @throws CheckpointError unless `[begin, end)` is a range of a file with `length` bytes. */
export function checkRange(file: string, begin: number, end: number, length: number): void {
  const valid =
    Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin <= end && end <= length;
  if (!valid)
    throw new CheckpointError(`read of ${file}: bytes ${begin} to ${end}, the file has ${length} bytes`);
}

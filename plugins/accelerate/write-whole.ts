/**
 * Small text files that are there whole or not at all.
 *
 * @module
 */
import { realpath, rename, rm, writeFile } from "node:fs/promises";
import { ConfigError } from "../../core/contracts/errors.ts";
import { quoted } from "../../core/runtime/names.ts";

/**
 * Replaces a file's content; a link goes on pointing to it.
 *
 * @param option what gave the path, for messages.
 * @throws ConfigError when it cannot be written.
 */
export async function writeWhole(path: string, text: string, option: string): Promise<void> {
  const target = await realpath(path).catch(() => path);
  const temporary = `${target}.${crypto.randomUUID()}.tmp`;
  try {
    await writeFile(temporary, text, { flag: "wx" });
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new ConfigError(
      `cannot use ${option}: ${quoted(path)} cannot be written (${(error as NodeJS.ErrnoException).code})`,
    );
  }
}

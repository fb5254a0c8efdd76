/**
 * Whether this system takes writes past its page cache.
 *
 * @module
 */
import { constants } from "node:fs";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { BLOCK } from "../../../checkpoint/stores/block-file.ts";

/** Whether a file in `folder` can be written past the page cache: some systems refuse, and some file systems of others. */
export async function takesDirect(folder: string): Promise<boolean> {
  const flag: number | undefined = constants.O_DIRECT;
  if (flag === undefined) return false;
  const path = join(folder, "takes-direct");
  const handle = await open(path, constants.O_CREAT | constants.O_WRONLY | flag).catch(() => undefined);
  try {
    const bytes = new Uint8Array(new SharedArrayBuffer(BLOCK));
    return (await handle?.write(bytes, 0, BLOCK, 0).catch(() => undefined)) !== undefined;
  } finally {
    await handle?.close();
    await rm(path, { force: true });
  }
}

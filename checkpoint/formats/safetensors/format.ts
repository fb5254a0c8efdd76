/**
 * The tensor format "safetensors" over files of this machine.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { NamedTensor, TensorFormat } from "../../../core/contracts/checkpointer.ts";
import { bytesOf } from "../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { layoutSafetensors } from "./layout.ts";
import { openSafetensors } from "./reader.ts";

/** Most bytes of one system call: runtimes refuse or cut counts from 2 GiB. */
const MAX_IO_BYTES = 1 << 30;

/** Reads and writes `.safetensors` files. */
export const safetensorsFormat: TensorFormat = Object.freeze({
  name: "safetensors",
  open: (path: string) => openSafetensors(path),
  write: writeSafetensors,
});

/** Streams tensor by tensor to a hidden sibling and renames it, so that `path` is never half written. */
async function writeSafetensors(
  path: string,
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const layout = layoutSafetensors(tensors, metadata);
  const temporary = join(dirname(path), `.${basename(path)}.tmp-${randomUUID()}`);
  try {
    const file = await open(temporary, "wx");
    try {
      await writeAll(file, layout.header);
      for (const { tensor, begin, end } of layout.tensors) {
        const bytes = bytesOf(await tensor.read());
        if (bytes.length !== end - begin) {
          throw new CheckpointError(
            `${tensor.name} has ${bytes.length} bytes, its shape takes ${end - begin}`,
          );
        }
        await writeAll(file, bytes);
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    const reason = error instanceof Error ? error.message : String(error);
    throw new CheckpointError(`write of ${path}: ${reason}`, { cause: error });
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, Math.min(bytes.length - at, MAX_IO_BYTES));
    at += bytesWritten;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

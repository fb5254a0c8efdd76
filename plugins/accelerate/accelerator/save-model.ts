/**
 * A model's whole parameters as a folder that Hugging Face's libraries read: `model.safetensors`, or several files behind
 * `model.safetensors.index.json`. The main process writes and holds one parameter at a time, which the others help it to gather.
 *
 * After `Accelerator.save_model` (accelerate/accelerator.py).
 *
 * @module
 */
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Collective } from "../../../core/contracts/collective.ts";
import { CheckpointError, ConfigError } from "../../../core/contracts/errors.ts";
import { FORMAT, type Registry } from "../../../core/contracts/plugin.ts";
import { type ReadableTensor, withFullTensors } from "../../../core/engine/model-state-dict.ts";
import type { AnyModule } from "../../../core/nn/module.ts";
import { parseBytes } from "../../../core/runtime/format.ts";
import { quoted } from "../../../core/runtime/names.ts";

const FILE = "model.safetensors";

/** What an earlier save may have left: the next one's files take their place, or they go. */
const WEIGHTS = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/;

/** Where and how a model is written. */
export interface ModelPlace {
  readonly registry: Registry;
  readonly world: Collective;
  readonly folder: string;
  /** Largest file, in bytes or as text such as `"5GB"`. */
  readonly maxShardSize: number | string;
}

/**
 * Writes a model. Collective.
 *
 * @throws ConfigError for a size that is none. CheckpointError on every rank when it cannot be written; then the folder
 *   has the weights that it had, unless just the putting in place failed.
 */
export async function writeModel(
  model: AnyModule,
  { registry, world, folder, maxShardSize }: ModelPlace,
): Promise<void> {
  const maxShardBytes = bytesOfSize(maxShardSize);
  const write = (tensors: readonly ReadableTensor[]): Promise<void> =>
    replaceWeights(folder, async (path) => {
      await registry.get(FORMAT, "safetensors").write(path, tensors, { format: "pt" }, { maxShardBytes });
    });
  await withFullTensors(model, world, write);
}

function bytesOfSize(size: number | string): number {
  const bytes = typeof size === "string" ? parseBytes(size) : size;
  if (bytes !== undefined && Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new ConfigError(
    `cannot use maxShardSize: given ${quoted(String(size))}, allowed are bytes, or sizes such as "500MB", "5GB", "2GiB"`,
  );
}

/** Lets `write` make weights beside those in a folder, and puts them in their place when all are there. */
async function replaceWeights(folder: string, write: (path: string) => Promise<void>): Promise<void> {
  const beside = join(folder, `.${FILE}-${crypto.randomUUID()}`);
  try {
    await mkdir(beside, { recursive: true });
    await write(join(beside, FILE));
    // An index last: it names the others.
    const made = (await readdir(beside)).sort(
      (a, b) => Number(a.endsWith(".json")) - Number(b.endsWith(".json")),
    );
    for (const name of made) await rename(join(beside, name), join(folder, name));
    const old = (await readdir(folder)).filter((name) => WEIGHTS.test(name) && !made.includes(name));
    for (const name of old) await rm(join(folder, name));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CheckpointError(`saveModel() to ${folder} failed: ${reason}`, { cause: error });
  } finally {
    await rm(beside, { recursive: true, force: true }).catch(() => undefined);
  }
}

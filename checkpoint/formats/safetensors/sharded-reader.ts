/**
 * Reads a model that lies in several safetensors files behind an index, or in a folder as Hugging Face lays it out.
 *
 * @module
 */
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { TensorReader } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { openFile, reasonOf } from "../byte-source.ts";
import { MAX_INDEX_BYTES, parseIndex } from "./index-file.ts";
import { openSafetensors, type SafetensorsReader } from "./reader.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** A reader that also tells where things are. */
export interface WeightsReader extends TensorReader {
  /** Files by name, with their lengths in bytes, in order of first use. */
  readonly files: ReadonlyMap<string, number>;
  fileOf(name: string): string;
  /** Of the only file; of several, what all agree on. */
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Opens a `.safetensors` file, an `.index.json` over several, or a folder with `model.safetensors` or
 * `model.safetensors.index.json` in it (the first of the two counts, as in transformers).
 *
 * @throws CheckpointError when nothing of the kind is there, or it is not valid.
 */
export async function openWeights(path: string): Promise<WeightsReader> {
  if (path.endsWith(".json")) return openIndex(path);
  if (!(await isFolder(path))) return openSingle(path);
  if (await exists(join(path, SINGLE))) return openSingle(join(path, SINGLE));
  if (await exists(join(path, INDEX))) return openIndex(join(path, INDEX));
  throw new CheckpointError(`open of ${path}: the folder has neither ${SINGLE} nor ${INDEX}`);
}

async function openSingle(path: string): Promise<WeightsReader> {
  const reader = await openSafetensors(path);
  return overFiles(
    path,
    new Map(reader.names.map((name) => [name, basename(path)])),
    new Map([[basename(path), reader]]),
  );
}

async function openIndex(path: string): Promise<WeightsReader> {
  const places = await readIndex(path);
  const readers = new Map<string, SafetensorsReader>();
  try {
    for (const file of new Set(places.values())) {
      readers.set(file, await openSafetensors(join(dirname(path), file)));
    }
    const missing = [...places].filter(([name, file]) => !readers.get(file)!.has(name));
    if (missing.length > 0) {
      const [name, file] = missing[0]!;
      throw new CheckpointError(
        `open of ${path}: ${missing.length} tensors are not in their files, ${JSON.stringify(name)} in ${file} first`,
      );
    }
  } catch (error) {
    await Promise.all([...readers.values()].map((reader) => reader.close()));
    throw error;
  }
  return overFiles(path, places, readers);
}

/** One reader over open files. `places` gives the file of every tensor. */
function overFiles(
  path: string,
  places: ReadonlyMap<string, string>,
  readers: ReadonlyMap<string, SafetensorsReader>,
): WeightsReader {
  const fileOf = (name: string): string => {
    const file = places.get(name);
    if (file === undefined) throw new CheckpointError(`read of ${path}: no tensor ${JSON.stringify(name)}`);
    return file;
  };
  const [first, ...others] = [...readers.values()].map(({ header }) => header.metadata);
  return {
    names: [...places.keys()],
    files: new Map([...readers].map(([file, { byteLength }]) => [file, byteLength])),
    metadata: new Map(
      [...(first ?? [])].filter(([key, value]) => others.every((other) => other.get(key) === value)),
    ),
    fileOf,
    has: (name) => places.has(name),
    info: (name) => readers.get(fileOf(name))!.info(name),
    read: async (name, box) => readers.get(fileOf(name))!.read(name, box),
    async close(): Promise<void> {
      await Promise.all([...readers.values()].map((reader) => reader.close()));
    },
  };
}

async function readIndex(path: string): Promise<ReadonlyMap<string, string>> {
  try {
    const file = await openFile(path);
    try {
      if (file.length > MAX_INDEX_BYTES) {
        throw new CheckpointError(`it has ${file.length} bytes, allowed are ${MAX_INDEX_BYTES}`);
      }
      return parseIndex(await file.read(0, file.length));
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new CheckpointError(`open of ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

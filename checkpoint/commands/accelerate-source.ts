/**
 * What `Accelerator.save_state` of Hugging Face accelerate leaves of a sharded run: a Distributed Checkpoint for each
 * model and optimizer, and beside them the states of schedulers, samplers and the like, as torch.save wrote them.
 *
 * Follows accelerate/checkpointing.py and accelerate/utils/fsdp_utils.py.
 *
 * @module
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Value } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { openFile, reasonOf } from "../formats/byte-source.ts";
import { toJson } from "../formats/pickle/json.ts";
import { openTorchFile } from "../formats/torch/reader.ts";
import { openDcpSource } from "./dcp-source.ts";
import { openSafetensorsSource } from "./safetensors-source.ts";
import type {
  CheckpointSource,
  LeftOut,
  SourceChunk,
  SourceTensor,
  SourceValue,
  Verifiable,
} from "./source.ts";
import { openTorchSource } from "./torch-source.ts";

/** Folders of models and optimizers (SHARDED_STATE_DICT); the first of each kind has the number 0. */
const SHARDED = /^(?:pytorch_model_fsdp|optimizer)_(\d{1,4})$/;
/** The same in one file each (FULL_STATE_DICT), where the first has no number; `model.safetensors` without FSDP. */
const FULL = /^(pytorch_model_fsdp|optimizer|model)(?:_(\d{1,4}))?\.(?:bin|safetensors)$/;
/** States that torch.save wrote: `scheduler.bin`, `scheduler_1.bin`. */
const STATE = /^((?:scheduler|sampler|dl_state_dict|scaler|custom_checkpoint)(?:_\d{1,4})?)\.(?:bin|pt|pkl)$/;
const RANDOM = /^random_states_\d{1,6}\.pkl$/;

/** Whether a folder looks like one that `save_state` wrote under FSDP. */
export async function isAccelerateFolder(folder: string): Promise<boolean> {
  return (await readdir(folder)).some(
    (name) => SHARDED.test(name) || /^(pytorch_model_fsdp|optimizer)\.bin$/.test(name),
  );
}

/** Opens the folder. @throws CheckpointError when one of its checkpoints is not sound. */
export async function openAccelerateSource(location: string): Promise<CheckpointSource & Verifiable> {
  const entries = (await readdir(location)).sort();
  const parts: Part[] = [];
  try {
    for (const entry of entries) {
      const open = partOpener(join(location, entry), entry);
      if (open === undefined) continue;
      const source = await open().catch((error: unknown) => {
        throw new CheckpointError(`${entry}: ${reasonOf(error)}`, { cause: error });
      });
      parts.push(partOf(entry, source, parts));
    }
    const states = await readStates(location, entries);
    return { ...combine(location, parts), ...withStates(parts, states), close: () => closeAll(parts) };
  } catch (error) {
    await closeAll(parts);
    throw error;
  }
}

/** One checkpoint of the folder, with its files and names as they are in the whole. */
interface Part {
  readonly folder: string;
  readonly source: CheckpointSource & Verifiable;
  readonly firstFile: number;
  /** Adds the number to the names of a second model or optimizer: `model_1.weight`. */
  rename(name: string): string;
}

/** How an entry of the folder is opened; `undefined` for what is no model and no optimizer. */
function partOpener(path: string, entry: string): (() => Promise<CheckpointSource & Verifiable>) | undefined {
  if (SHARDED.test(entry)) return () => openDcpSource(path);
  const [, kind] = FULL.exec(entry) ?? [];
  if (kind === undefined) return undefined;
  if (entry.endsWith(".bin"))
    return () => openTorchSource(path, [kind === "optimizer" ? "optimizer" : "model"]);
  return async () => under("model", await openSafetensorsSource(path));
}

/** Puts the names of a weights file under a key. */
function under(key: string, source: CheckpointSource & Verifiable): CheckpointSource & Verifiable {
  const own = (name: string): string => name.slice(key.length + 1);
  return {
    ...source,
    tensors: source.tensors.map((tensor) => ({
      ...tensor,
      name: `${key}.${tensor.name}`,
      path: [key, tensor.name],
    })),
    values: [],
    read: (name, box) => source.read(own(name), box),
  };
}

function partOf(folder: string, source: CheckpointSource & Verifiable, before: readonly Part[]): Part {
  const number = SHARDED.exec(folder)?.[1] ?? FULL.exec(folder)?.[2] ?? "0";
  const last = before.at(-1);
  return {
    folder,
    source,
    firstFile: last === undefined ? 0 : last.firstFile + last.source.files.length,
    rename: (name) => (number === "0" ? name : name.replace(/^[^.]*/, (key) => `${key}_${number}`)),
  };
}

function combine(
  location: string,
  parts: readonly Part[],
): Omit<CheckpointSource & Verifiable, "values" | "leftOut" | "close"> {
  const places = new Map<string, { part: Part; name: string }>();
  const tensors = parts.flatMap((part) =>
    part.source.tensors.map((tensor): SourceTensor => {
      const name = part.rename(tensor.name);
      if (places.has(name)) throw new CheckpointError(`open of ${location}: two tensors ${name}`);
      places.set(name, { part, name: tensor.name });
      const chunks = tensor.chunks.map(
        (chunk): SourceChunk => ({ ...chunk, file: part.firstFile + chunk.file }),
      );
      return { ...tensor, name, chunks, path: renamePath(part, tensor.path) };
    }),
  );
  return {
    format: "accelerate",
    location,
    worldSize: Math.max(...parts.map(({ source }) => source.files.length)),
    files: parts.flatMap(({ folder, source }) =>
      source.files.map(({ name, bytes }) => ({ name: fileIn(folder, name), bytes })),
    ),
    tensors,
    rankValues: [],
    nested: true,
    async read(name, box) {
      const place = places.get(name);
      if (place === undefined)
        throw new CheckpointError(`read of ${location}: no tensor ${JSON.stringify(name)}`);
      return await place.part.source.read(place.name, box);
    },
    async verify() {
      const faults = await Promise.all(
        parts.map(async ({ folder, source }) =>
          (await source.verify()).map(({ file, problem }) => ({ file: fileIn(folder, file), problem })),
        ),
      );
      return faults.flat();
    },
  };
}

/** The name of a part's file in the whole; a part that is one file has its name. */
function fileIn(part: string, file: string): string {
  return part === file ? file : `${part}/${file}`;
}

function withStates(
  parts: readonly Part[],
  states: { readonly values: readonly SourceValue[]; readonly leftOut: readonly LeftOut[] },
): { readonly values: readonly SourceValue[]; readonly leftOut: readonly LeftOut[] } {
  const own = parts.flatMap((part) =>
    part.source.values.map(
      (value): SourceValue => ({
        ...value,
        name: part.rename(value.name),
        path: renamePath(part, value.path),
        ...(value.file === undefined ? {} : { file: part.firstFile + value.file }),
      }),
    ),
  );
  return {
    values: [...own, ...states.values],
    leftOut: [...parts.flatMap(({ source }) => source.leftOut), ...states.leftOut],
  };
}

function renamePath(part: Part, path: SourceTensor["path"]): SourceTensor["path"] {
  const [first, ...rest] = path ?? [];
  return typeof first === "string" ? [part.rename(first), ...rest] : path;
}

/** Values of the state files: `scheduler.last_epoch`. */
async function readStates(
  location: string,
  entries: readonly string[],
): Promise<{ values: readonly SourceValue[]; leftOut: readonly LeftOut[] }> {
  const values: SourceValue[] = [];
  const leftOut: LeftOut[] = [];
  for (const file of entries) {
    if (RANDOM.test(file)) {
      leftOut.push({
        name: file,
        reason: "random states of PyTorch, NumPy and Python, which nothing else can go on from",
      });
    }
    const name = STATE.exec(file)?.[1];
    if (name === undefined) continue;
    try {
      const value = await readState(join(location, file));
      if (value === null || typeof value !== "object" || Array.isArray(value))
        values.push({ name, value, path: [name] });
      else
        for (const [key, member] of Object.entries(value))
          values.push({ name: `${name}.${key}`, value: member, path: [name, key] });
    } catch (error) {
      leftOut.push({ name: file, reason: reasonOf(error) });
    }
  }
  return { values, leftOut };
}

async function readState(path: string): Promise<Value> {
  const file = await openFile(path, { refuseLinks: true });
  try {
    return toJson((await openTorchFile(file)).value);
  } finally {
    await file.close();
  }
}

async function closeAll(parts: readonly Part[]): Promise<void> {
  await Promise.all(parts.map(({ source }) => source.close()));
}

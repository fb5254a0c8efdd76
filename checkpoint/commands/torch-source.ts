/**
 * What torch.save made of a state dict (`pytorch_model.bin`, `optimizer.bin`) as a source: tensors wherever they lie in
 * nested dicts, everything else as values.
 *
 * @module
 */
import { basename } from "node:path";
import type { CheckpointFault } from "../../core/contracts/checkpointer.ts";
import { hostArray, STORED_DTYPES } from "../../core/contracts/dtype.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { volume, wholeBox } from "../boxes.ts";
import { openFile, reasonOf, roomFor } from "../formats/byte-source.ts";
import type { DcpPath } from "../formats/dcp/metadata.ts";
import { toJson } from "../formats/pickle/json.ts";
import type { PickleValue } from "../formats/pickle/values.ts";
import { openTorchFile } from "../formats/torch/reader.ts";
import { type TensorValue, tensorOf } from "../formats/torch/tensor-value.ts";
import type { CheckpointSource, LeftOut, SourceTensor, SourceValue, Verifiable } from "./source.ts";

const MAX_DEPTH = 16;
const MAX_ENTRIES = 1_000_000;

/**
 * Opens a file of torch.save.
 *
 * @param under keys that the file's names are put under; with them, names tell what they belong to
 * @throws CheckpointError when it is not one, or names things that are no data.
 */
export async function openTorchSource(
  location: string,
  under: DcpPath = [],
): Promise<CheckpointSource & Verifiable> {
  const file = await openFile(location);
  try {
    const opened = await openTorchFile(file);
    const { tensors, values, leftOut } = flatten(opened.value, under);
    const read: CheckpointSource["read"] = async (name, box) => {
      const found = tensors.get(name);
      if (found === undefined)
        throw new CheckpointError(`read of ${location}: no tensor ${JSON.stringify(name)}`);
      const { dtype } = found.tensor;
      const elements = volume(box.sizes);
      const bytes = roomFor(name, elements * STORED_DTYPES[dtype].bytes);
      await opened.place(found.tensor, box, bytes, box);
      return hostArray(dtype, bytes.buffer, 0, elements);
    };
    return {
      format: "torch",
      location,
      files: [{ name: basename(location), bytes: file.length }],
      tensors: [...tensors].map(
        ([name, { path, tensor }]): SourceTensor => ({
          name,
          path,
          dtype: tensor.dtype,
          shape: tensor.shape,
          chunks: [{ ...wholeBox(tensor.shape), file: 0 }],
        }),
      ),
      values,
      rankValues: [],
      leftOut,
      nested: under.length > 0,
      read,
      async verify(): Promise<readonly CheckpointFault[]> {
        const faults: CheckpointFault[] = [];
        for (const [name, { tensor }] of tensors) {
          await read(name, wholeBox(tensor.shape)).catch((error: unknown) => {
            faults.push({ file: basename(location), problem: `${name}: ${reasonOf(error)}` });
          });
        }
        return faults;
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw new CheckpointError(`open of ${location}: ${reasonOf(error)}`, { cause: error });
  }
}

interface Flat {
  readonly tensors: Map<string, { readonly path: DcpPath; readonly tensor: TensorValue }>;
  readonly values: SourceValue[];
  readonly leftOut: LeftOut[];
}

/** Names of all that a state holds, as DCP flattens it: through dicts, and through lists that hold tensors or dicts. */
function flatten(state: PickleValue, under: DcpPath): Flat {
  const flat: Flat = { tensors: new Map(), values: [], leftOut: [] };
  const names = new Set<string>();
  const visit = (value: PickleValue, path: DcpPath): void => {
    if (path.length > MAX_DEPTH + under.length) throw new CheckpointError("a state that nests too deep");
    const items = entriesOf(value);
    if (items !== undefined) {
      for (const [key, item] of items) visit(item, [...path, key]);
      return;
    }
    const name = path.join(".");
    if (name === "" || names.has(name) || names.size >= MAX_ENTRIES) {
      throw new CheckpointError(`a state in which ${JSON.stringify(name)} has no name of its own`);
    }
    names.add(name);
    const tensor = tensorOf(value);
    if (tensor !== undefined) {
      flat.tensors.set(name, { path, tensor });
      return;
    }
    try {
      flat.values.push({ name, path, value: toJson(value), exact: value, file: 0 });
    } catch (error) {
      flat.leftOut.push({ name, reason: reasonOf(error) });
    }
  };
  visit(state, under);
  return flat;
}

/** What a container holds; `undefined` for what is a value of its own. */
function entriesOf(value: PickleValue): readonly (readonly [string | number, PickleValue])[] | undefined {
  if (Array.isArray(value)) {
    const nested = value.some((item) => tensorOf(item) !== undefined || entriesOf(item) !== undefined);
    return nested ? value.map((item, i) => [i, item]) : undefined;
  }
  if (value === null || typeof value !== "object" || !("kind" in value) || value.kind !== "dict")
    return undefined;
  const keyed = value.entries.flatMap(([key, item]) =>
    // Integers in a path mean places in a list; those of a dict become text, as in torch.
    typeof key === "string" || typeof key === "number" ? [[String(key), item] as const] : [],
  );
  return keyed.length === value.entries.length ? keyed : undefined;
}

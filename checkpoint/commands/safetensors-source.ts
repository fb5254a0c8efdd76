/**
 * Safetensors files, alone or behind an index, as a source.
 *
 * @module
 */
import type { CheckpointFault, Value } from "../../core/contracts/checkpointer.ts";
import { wholeBox } from "../boxes.ts";
import { reasonOf } from "../formats/byte-source.ts";
import { fromJson } from "../formats/pickle/json.ts";
import { openWeights } from "../formats/safetensors/sharded-reader.ts";
import type { CheckpointSource, SourceTensor, Verifiable } from "./source.ts";

/** What Hugging Face's tools note about a file; no value of a state. */
const NOTES: ReadonlySet<string> = new Set(["format"]);

/** Opens files. @throws CheckpointError when they are not valid. */
export async function openSafetensorsSource(location: string): Promise<CheckpointSource & Verifiable> {
  const reader = await openWeights(location);
  try {
    const files = [...reader.files].map(([name, bytes]) => ({ name, bytes }));
    const indices = new Map(files.map(({ name }, i) => [name, i]));
    const tensors = reader.names.map((name): SourceTensor => {
      const { dtype, shape } = reader.info(name);
      return {
        name,
        dtype,
        shape,
        chunks: [{ ...wholeBox(shape), file: indices.get(reader.fileOf(name))! }],
      };
    });
    return {
      format: "safetensors",
      location,
      files,
      tensors,
      values: [...reader.metadata]
        .filter(([name]) => !NOTES.has(name))
        .map(([name, text]) => ({ name, value: parse(text) })),
      rankValues: [],
      leftOut: [],
      nested: false,
      read: (name, box) => reader.read(name, box),
      // The format has no checksums: that the header fits the file was proven when it was opened.
      async verify(): Promise<readonly CheckpointFault[]> {
        const faults: CheckpointFault[] = [];
        for (const { name, chunks } of tensors) {
          const file = files[chunks[0]!.file]!.name;
          await reader.read(name).catch((error: unknown) => faults.push({ file, problem: reasonOf(error) }));
        }
        return faults;
      },
      close: () => reader.close(),
    };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

/** Values are written as JSON; what others wrote, and what nests too deep to be a value, is text. */
function parse(text: string): Value {
  try {
    const value = JSON.parse(text) as Value;
    fromJson(value);
    return value;
  } catch {
    return text;
  }
}

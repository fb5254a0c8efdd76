/**
 * `merge-weights`: the model of a sharded checkpoint as one safetensors file under its own names, as accelerate's command
 * of that name makes it; tensor by tensor, so that memory is bounded by the largest.
 *
 * @module
 */

import type { NamedTensor } from "../../core/contracts/checkpointer.ts";
import type { CommandSpec } from "../../core/contracts/command.ts";
import { STORED_DTYPES } from "../../core/contracts/dtype.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { FORMAT } from "../../core/contracts/plugin.ts";
import { formatCount } from "../../core/runtime/format.ts";
import { quotedList } from "../../core/runtime/names.ts";
import { volume, wholeBox } from "../boxes.ts";
import { pathOf } from "./dcp-names.ts";
import { findSource } from "./find-source.ts";
import type { CheckpointSource } from "./source.ts";
import { maxShardBytes, TARGET_OPTIONS, weightsTarget } from "./target.ts";
import { sizeText } from "./terminal.ts";

/** The key under which a state has its model. */
const MODEL = "model";

/** Writes a checkpoint's model as one file. */
export const mergeWeightsCommand: CommandSpec = {
  summary: "makes one safetensors file of a sharded checkpoint's model",
  positionals: "SRC OUT",
  options: TARGET_OPTIONS,
  run: async ({ registry, options, positionals, print }) => {
    const [location, out] = positionals as [string, string];
    const limit = maxShardBytes(options);
    const source = await (await findSource(registry, location)).open();
    try {
      const tensors = modelTensors(source);
      const file = await weightsTarget(out, options);
      await registry
        .get(FORMAT, "safetensors")
        .write(file, tensors, { format: "pt" }, { maxShardBytes: limit });
      const parameters = tensors.reduce((sum, { shape }) => sum + volume(shape), 0);
      const bytes = tensors.reduce(
        (sum, { shape, dtype }) => sum + volume(shape) * STORED_DTYPES[dtype].bytes,
        0,
      );
      print(
        options.json === true
          ? JSON.stringify({
              source: source.location,
              format: source.format,
              file,
              tensors: tensors.length,
              parameters,
              bytes,
            })
          : `${source.location} (${source.format}): ${tensors.length} tensors, ${formatCount(parameters)} parameters, ${sizeText(bytes)} in ${file}`,
      );
      return 0;
    } finally {
      await source.close();
    }
  },
};

/**
 * The model's tensors under its own names: what lies under `model`, or under the only key that there is.
 *
 * @throws CheckpointError when there are none.
 */
function modelTensors(source: CheckpointSource): readonly NamedTensor[] {
  const prefix = source.nested ? `${modelKey(source)}.` : "";
  return source.tensors.flatMap(({ name, dtype, shape }): NamedTensor[] => {
    if (!name.startsWith(prefix)) return [];
    return [
      {
        name: name.slice(prefix.length),
        dtype,
        shape,
        read: () => source.read(name, wholeBox(shape)),
        readBox: (box) => source.read(name, box),
      },
    ];
  });
}

function modelKey({ location, tensors, values }: CheckpointSource): string {
  const paths = [...tensors, ...values].map(({ name, path }) => path ?? pathOf(name));
  const keys = [...new Set(paths.map(([key]) => String(key)))];
  const nested = tensors.some(({ name, path }) => (path ?? pathOf(name)).length > 1);
  const key = keys.includes(MODEL) || keys.length !== 1 ? MODEL : keys[0]!;
  if (nested && tensors.some(({ name }) => name.startsWith(`${key}.`))) return key;
  throw new CheckpointError(
    `${location}: it has no tensors under ${JSON.stringify(MODEL)}, its keys are ${quotedList(keys.slice(0, 8))}`,
  );
}

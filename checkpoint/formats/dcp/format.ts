/**
 * The tensor format "dcp": the folders of torch.distributed.checkpoint.
 *
 * @module
 */
import type { NamedTensor, TensorFormat } from "../../../core/contracts/checkpointer.ts";
import { wholeBox } from "../../boxes.ts";
import { openDcp } from "./reader.ts";
import { writeDcp } from "./writer.ts";

/** Reads any such folder; writes one with a single file, in the place of one that stands there. */
export const dcpFormat: TensorFormat = Object.freeze({
  name: "dcp",
  open: openDcp,
  write: (path: string, tensors: readonly NamedTensor[], metadata: Readonly<Record<string, string>>) =>
    writeDcp(
      path,
      {
        tensors: tensors.map(({ name, dtype, shape, read }) => ({
          name,
          dtype,
          shape,
          path: [name],
          boxes: [{ ...wholeBox(shape), rank: 0 }],
          read: () => read(),
        })),
        values: Object.entries(metadata).map(([name, value]) => ({ name, path: [name], value, rank: 0 })),
        worldSize: 1,
      },
      { overwrite: true },
    ),
});

/**
 * Tensors of a checkpoint: what there is, and boxes of them, whatever files they are scattered over.
 *
 * @module
 */
import { STORED_DTYPES } from "../../../core/contracts/dtype.ts";
import { blockReader } from "../../block-reader.ts";
import { formatBox, insideShape, volume, wholeBox } from "../../boxes.ts";
import { sha256Hex } from "../../digest.ts";
import type { ManifestTensor } from "../../manifest.ts";
import { answerContent, type Content } from "../content.ts";
import { Problem } from "../problem.ts";
import { tensorBytes } from "../tensor-bytes.ts";
import { json, type Route, route } from "./route.ts";
import { boxQuery, noQuery, tensorsAnswer } from "./schemas.ts";

const TAG = "tensors";
const PATH = "/v1/runs/{run}/checkpoints/{checkpoint}/tensors";

function bytesOf({ dtype, shape }: ManifestTensor): number {
  return volume(shape) * STORED_DTYPES[dtype].bytes;
}

/** Routes of tensors. */
export const tensorRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: PATH,
    operation: "listTensors",
    tag: TAG,
    summary: "The tensors of a checkpoint: dtype, global shape, bytes, number of chunks.",
    scopes: ["read"],
    query: noQuery,
    answers: { 200: { description: "The tensors", schema: tensorsAnswer } },
    async handle({ service, params }): Promise<Response> {
      const run = await service.run(params.run);
      const { manifest, sha256 } = await service.manifests.open(run, params.checkpoint);
      const tensors = manifest.tensors.map((tensor) => {
        const { name, dtype, shape, chunks } = tensor;
        return { name, dtype, shape, bytes: bytesOf(tensor), chunks: chunks.length };
      });
      return json({ tensors }, 200, { etag: `"${sha256.slice(0, 32)}-tensors"` });
    },
  }),
  route({
    method: "GET",
    path: `${PATH}/{tensor}`,
    operation: "getTensor",
    tag: TAG,
    summary:
      "The elements of a tensor, or of the box at `offsets` with `sizes` (integers separated by commas), row-major and " +
      "little-endian. Ranges count bytes of that.",
    scopes: ["read"],
    query: boxQuery,
    answers: {
      200: { description: "The elements; dtype and shape in headers", type: "application/octet-stream" },
    },
    async handle({ service, request, params, query }): Promise<Response> {
      const run = await service.run(params.run);
      const { manifest, sha256 } = await service.manifests.open(run, params.checkpoint);
      const tensor = manifest.tensors.find(({ name }) => name === params.tensor);
      if (tensor === undefined) {
        throw new Problem("not-found", `checkpoint ${params.checkpoint} has no tensor of this name`);
      }
      const { offsets, sizes } = query;
      const box = offsets === undefined || sizes === undefined ? wholeBox(tensor.shape) : { offsets, sizes };
      if (!insideShape(box, tensor.shape)) {
        throw new Problem("invalid", `box ${formatBox(box)} is outside shape [${tensor.shape}]`, {
          fields: { box, shape: tensor.shape },
        });
      }
      const what = sha256Hex(JSON.stringify([sha256, tensor.name, box]));
      const content: Content = {
        length: volume(box.sizes) * STORED_DTYPES[tensor.dtype].bytes,
        etag: `"${what.slice(0, 32)}"`,
        type: "application/octet-stream",
        immutable: false,
        headers: { "tensor-dtype": tensor.dtype, "tensor-shape": box.sizes.join(",") },
        async *read(begin, end): AsyncGenerator<Uint8Array> {
          const reader = blockReader(run.store, params.checkpoint, manifest.files);
          try {
            yield* tensorBytes(reader, tensor, box, begin, end);
          } finally {
            await reader.close();
          }
        },
      };
      return answerContent(request, content, service.transfers);
    },
  }),
];

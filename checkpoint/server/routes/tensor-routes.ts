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
import { castBytes, castTarget } from "../cast-bytes.ts";
import { answerContent, type Content } from "../content.ts";
import { Problem } from "../problem.ts";
import { CONDITIONS, CONTENT, RANGES } from "./headers.ts";
import { type Route, route, taggedJson } from "./route.ts";
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
    headers: CONDITIONS,
    answers: { 200: { description: "The tensors", schema: tensorsAnswer, headers: ["ETag"] } },
    async handle({ service, request, params }): Promise<Response> {
      const run = await service.run(params.run);
      const { manifest, sha256 } = await service.manifests.open(run, params.checkpoint);
      const tensors = manifest.tensors.map((tensor) => {
        const { name, dtype, shape, chunks } = tensor;
        return { name, dtype, shape, bytes: bytesOf(tensor), chunks: chunks.length };
      });
      return taggedJson(request, { tensors }, `"${sha256.slice(0, 32)}-tensors"`);
    },
  }),
  route({
    method: "GET",
    path: `${PATH}/{tensor}`,
    operation: "getTensor",
    tag: TAG,
    summary:
      "The elements of a tensor, or of the box at `offsets` with `sizes` (integers separated by commas), row-major and " +
      "little-endian; with `dtype` (float64, float32, float16, bfloat16) converted into that. Ranges count bytes of " +
      "what is sent.",
    scopes: ["read"],
    query: boxQuery,
    headers: RANGES,
    answers: {
      200: {
        description: "The elements; dtype and shape in headers",
        type: "application/octet-stream",
        headers: [...CONTENT, "Tensor-Dtype", "Tensor-Shape"],
      },
      206: {
        description: "A range of them",
        type: "application/octet-stream",
        headers: [...CONTENT, "Content-Range", "Tensor-Dtype", "Tensor-Shape"],
      },
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
      const dtype = query.dtype === undefined ? tensor.dtype : castTarget(tensor.dtype, query.dtype);
      const what = sha256Hex(JSON.stringify([sha256, tensor.name, box, dtype]));
      const content: Content = {
        length: volume(box.sizes) * STORED_DTYPES[dtype].bytes,
        etag: `"${what.slice(0, 32)}"`,
        type: "application/octet-stream",
        immutable: false,
        headers: { "tensor-dtype": dtype, "tensor-shape": box.sizes.join(",") },
        async *read(...range): AsyncGenerator<Uint8Array> {
          const reader = blockReader(run.store, params.checkpoint, manifest.files);
          try {
            yield* castBytes(reader, tensor, box, dtype, ...range);
          } finally {
            await reader.close();
          }
        },
      };
      return answerContent(request, content, service.transfers);
    },
  }),
];

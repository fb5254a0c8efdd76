/**
 * Exports: a checkpoint's model as Hugging Face's files, made while they are sent. `maxShardSize` cuts them; the same
 * value belongs to the index and to the files it names. `dtype` converts floating tensors, and belongs to both as well.
 *
 * @module
 */
import { type BlockReader, blockReader } from "../../block-reader.ts";
import { sha256Hex } from "../../digest.ts";
import { answerContent, type Content } from "../content.ts";
import {
  type ExportFile,
  exportBytes,
  exportedTensors,
  exportIndex,
  INDEX_FILE,
  MODEL_FILE,
  shardFiles,
  wholeFile,
} from "../export.ts";
import { Problem } from "../problem.ts";
import type { Service } from "../service.ts";
import { CONTENT, RANGES } from "./headers.ts";
import { type Route, route } from "./route.ts";
import { type ExportQuery, exportQuery } from "./schemas.ts";

const TAG = "export";
const PATH = "/v1/runs/{run}/checkpoints/{checkpoint}";
/** Bytes of tensors per file where the request does not say: what huggingface_hub takes. */
const SHARD_BYTES = 5e9;

interface Asked {
  readonly service: Service;
  readonly request: Request;
  readonly params: { readonly run: string; readonly checkpoint: string };
  readonly query: ExportQuery;
}

async function answerFile({ service, request, params, query }: Asked, wanted: string): Promise<Response> {
  const run = await service.run(params.run);
  const { manifest, sha256 } = await service.manifests.open(run, params.checkpoint);
  const tensors = exportedTensors(manifest, query);
  const files =
    wanted === MODEL_FILE ? [wholeFile(tensors)] : shardFiles(tensors, query.maxShardSize ?? SHARD_BYTES);
  const what = sha256Hex(JSON.stringify([sha256, wanted, query])).slice(0, 32);
  if (wanted === INDEX_FILE) {
    const text = new TextEncoder().encode(exportIndex(files));
    const content: Content = {
      length: text.length,
      etag: `"${what}"`,
      type: "application/json",
      immutable: false,
      async *read(begin, end): AsyncGenerator<Uint8Array> {
        yield text.slice(begin, end);
      },
    };
    return answerContent(request, content, service.transfers);
  }
  const file: ExportFile | undefined = files.find(({ name }) => name === wanted);
  if (file === undefined) {
    throw new Problem("not-found", `the export has no file ${wanted}`, {
      fields: { files: files.slice(0, 1000).map(({ name }) => name) },
    });
  }
  const open = (): BlockReader => blockReader(run.store, params.checkpoint, manifest.files);
  const content: Content = {
    length: file.layout.fileBytes,
    etag: `"${what}"`,
    type: "application/octet-stream",
    immutable: false,
    headers: { "content-disposition": `attachment; filename="${wanted}"` },
    read: (...range) => exportBytes(file, open, ...range),
  };
  return answerContent(request, content, service.transfers);
}

/** Routes of exports. */
export const exportRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: `${PATH}/export.safetensors`,
    operation: "exportModel",
    tag: TAG,
    summary:
      "The model in one safetensors file. `prefix` chooses tensors by name and is cut off; default `model.`. `dtype` " +
      "(float64, float32, float16, bfloat16) converts floating tensors.",
    scopes: ["read"],
    query: exportQuery,
    headers: RANGES,
    answers: {
      200: {
        description: "The file",
        type: "application/octet-stream",
        headers: [...CONTENT, "Content-Disposition"],
      },
      206: {
        description: "A range of it",
        type: "application/octet-stream",
        headers: [...CONTENT, "Content-Disposition", "Content-Range"],
      },
    },
    handle: (input) => answerFile(input, MODEL_FILE),
  }),
  route({
    method: "GET",
    path: `${PATH}/export/{file}`,
    operation: "exportFile",
    tag: TAG,
    summary: `A file of the model as Hugging Face names it: ${MODEL_FILE}, ${INDEX_FILE}, model-00001-of-00002.safetensors.`,
    scopes: ["read"],
    query: exportQuery,
    headers: RANGES,
    answers: {
      200: {
        description: "The file",
        type: "application/octet-stream",
        headers: [...CONTENT, "Content-Disposition"],
      },
      206: {
        description: "A range of it",
        type: "application/octet-stream",
        headers: [...CONTENT, "Content-Disposition", "Content-Range"],
      },
    },
    handle: (input) => answerFile(input, input.params.file),
  }),
];

/**
 * Blobs: bytes named by their SHA-256, within a run. Storing what is there already costs no room.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bodyOf } from "../body.ts";
import { answerContent, type Content, fileBytes } from "../content.ts";
import { digestField, parseCount, parseDigest } from "../http-fields.ts";
import { Problem } from "../problem.ts";
import type { Run } from "../run.ts";
import type { Service } from "../service.ts";
import { Upload } from "../upload.ts";
import { CONTENT, RANGES } from "./headers.ts";
import { empty, type Route, route } from "./route.ts";
import { noQuery } from "./schemas.ts";

const TAG = "blobs";
const PATH = "/v1/runs/{run}/blobs/{sha256}";

/** The content of a blob, which is its own name. */
export async function answerBlob(
  { service, request }: { readonly service: Service; readonly request: Request },
  run: Run,
  sha256: string,
  options: { readonly immutable: boolean; readonly missing: string },
): Promise<Response> {
  const found = await run.blobs.find(sha256);
  if (found === undefined) throw new Problem("not-found", options.missing);
  const content: Content = {
    length: found.length,
    etag: `"${sha256}"`,
    type: "application/octet-stream",
    immutable: options.immutable,
    headers: { "repr-digest": digestField(sha256) },
    read: (...range) => fileBytes(run.blobs.pathOf(sha256), ...range),
  };
  return answerContent(request, content, service.transfers);
}

/** Routes of blobs. */
export const blobRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: PATH,
    operation: "getBlob",
    tag: TAG,
    summary: "The bytes with this SHA-256, or a range of them. HEAD tells whether an upload is needed.",
    scopes: ["read"],
    headScopes: ["write"],
    query: noQuery,
    headers: RANGES,
    answers: {
      200: {
        description: "The bytes",
        type: "application/octet-stream",
        headers: [...CONTENT, "Repr-Digest"],
      },
      206: {
        description: "A range of them",
        type: "application/octet-stream",
        headers: [...CONTENT, "Content-Range", "Repr-Digest"],
      },
    },
    async handle({ service, request, params }): Promise<Response> {
      const run = await service.run(params.run);
      const missing = `run ${run.name} has no blob ${params.sha256}`;
      return answerBlob({ service, request }, run, params.sha256, { immutable: true, missing });
    },
  }),
  route({
    method: "PUT",
    path: PATH,
    operation: "putBlob",
    tag: TAG,
    summary: "Stores bytes in one request. They are kept for a while, in which a save may take them up.",
    scopes: ["write"],
    query: noQuery,
    headers: ["Repr-Digest"],
    content: ["application/octet-stream"],
    answers: {
      200: { description: "They were there", headers: ["ETag", "Location", "Repr-Digest"] },
      201: { description: "Stored", headers: ["ETag", "Location", "Repr-Digest"] },
    },
    async handle({ service, request, params, mount }): Promise<Response> {
      const { sha256 } = params;
      const run = await service.makeRun(params.run);
      const headers = {
        location: `${mount}/v1/runs/${run.name}/blobs/${sha256}`,
        etag: `"${sha256}"`,
        "repr-digest": digestField(sha256),
      };
      const claimed = parseDigest(request, "repr-digest") ?? sha256;
      if (claimed !== sha256) throw new Problem("digest-mismatch", "repr-digest is not the blob's name");
      if ((await run.blobs.findSound(sha256)) !== undefined) {
        await request.body?.cancel();
        return empty(200, headers);
      }
      const limit = service.limits.appendBytes;
      const declared = parseCount(request, "content-length") ?? 0;
      if (declared > limit) {
        throw new Problem(
          "too-large",
          `the blob has ${declared} bytes, allowed in one request are ${limit}`,
          {
            fields: { limit },
          },
        );
      }
      await service.reserve(declared);
      const path = join(run.savesFolder, "..", "blobs", `.part-${randomUUID()}`);
      await writeFile(path, new Uint8Array(0), { flag: "wx" });
      const upload = new Upload({ id: sha256, length: parseCount(request, "content-length") }, path);
      try {
        const { idleSeconds } = service.limits;
        const body = bodyOf(request);
        const digest = await upload.append({ offset: 0, body, bytes: declared, limit, idleSeconds }, () =>
          upload.finish(),
        );
        if (digest.sha256 !== sha256) {
          throw new Problem("digest-mismatch", "the bytes have another SHA-256; they were dropped");
        }
        await run.blobs.adopt(path, digest);
      } finally {
        upload.drop();
        await rm(path, { force: true });
      }
      return empty(201, headers);
    },
  }),
];

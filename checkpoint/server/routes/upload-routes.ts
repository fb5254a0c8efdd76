/**
 * Uploads: the resumable way for bytes into a save (draft-ietf-httpbis-resumable-upload, interop version 8). Created
 * without a body, since the draft's interim response cannot be sent from here.
 *
 * @module
 */
import { createHash, randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { bodyOf } from "../body.ts";
import {
  checkWritable,
  digestField,
  idempotencyKey,
  parseBoolean,
  parseCount,
  parseDigest,
} from "../http-fields.ts";
import type { ServiceLimits } from "../limits.ts";
import { Problem } from "../problem.ts";
import type { Run } from "../run.ts";
import type { Save, SaveFile } from "../save.ts";
import type { Service } from "../service.ts";
import type { Upload } from "../upload.ts";
import { empty, type Route, route } from "./route.ts";
import { saveOf } from "./save-routes.ts";
import { noQuery, uploadQuery } from "./schemas.ts";

const TAG = "uploads";
const PATH = "/v1/runs/{run}/saves/{save}/uploads/{upload}";

/** Media type of an append. */
const PARTIAL = "application/partial-upload";

/** Starts an upload; call in the save's queue. */
async function start(
  service: Service,
  save: Save,
  request: Request,
  file: string | undefined,
): Promise<Upload> {
  save.checkOpen();
  const { limits } = service;
  const key = idempotencyKey(request);
  const length = parseCount(request, "upload-length");
  const sha256 = parseDigest(request, "repr-digest");
  const known = key === undefined ? undefined : [...save.uploads.values()].find((u) => u.spec.key === key);
  if (known !== undefined) {
    const { spec } = known;
    if (spec.file === file && spec.length === length && spec.sha256 === sha256) return known;
    throw new Problem("key-reused", "the idempotency key began another upload");
  }
  if (parseBoolean(request, "upload-complete") === true) {
    throw new Problem("malformed", "an upload is created without its bytes, with Upload-Complete: ?0");
  }
  if (file !== undefined && save.isTaken(file)) {
    throw new Problem("already-exists", `the save of ${save.begun.name} has a file ${file} already`);
  }
  if (save.files.size + save.uploads.size >= limits.filesPerSave) {
    throw new Problem("limit", `the save has ${limits.filesPerSave} files, which is the most`, {
      fields: { limit: limits.filesPerSave },
    });
  }
  if ((length ?? 0) > limits.fileBytes) {
    throw new Problem("too-large", `the file has ${length} bytes, allowed are ${limits.fileBytes}`, {
      fields: { limit: limits.fileBytes },
    });
  }
  await service.reserve(length ?? 0);
  return save.addUpload({ id: randomUUID(), file, length, sha256, key });
}

/** Where an upload stands, as headers. */
function standing(
  offset: number,
  length: number | undefined,
  complete: boolean,
  limits: ServiceLimits,
): Record<string, string> {
  return {
    "upload-offset": String(offset),
    "upload-complete": complete ? "?1" : "?0",
    ...(length === undefined ? {} : { "upload-length": String(length) }),
    "upload-limit": `max-size=${limits.fileBytes}, max-append-size=${limits.appendBytes}`,
  };
}

function stored(mount: string, run: Run, { sha256, length }: SaveFile, limits: ServiceLimits): Response {
  return empty(201, {
    ...standing(length, length, true, limits),
    location: `${mount}/v1/runs/${run.name}/blobs/${sha256}`,
    etag: `"${sha256}"`,
    "repr-digest": digestField(sha256),
  });
}

/** Most bytes that this append may bring. @throws Problem when it says that it brings more. */
function appendLimit(upload: Upload, offset: number, request: Request, limits: ServiceLimits): number {
  const limit = Math.min(limits.appendBytes, (upload.spec.length ?? limits.fileBytes) - offset);
  const declared = parseCount(request, "content-length") ?? 0;
  if (declared <= limit) return limit;
  throw new Problem("too-large", `the append has ${declared} bytes, allowed are ${limit}`, {
    fields: { limit },
  });
}

/** Writes the body of a request to an upload; call exclusively. */
async function append(service: Service, upload: Upload, request: Request, offset: number): Promise<void> {
  const limit = appendLimit(upload, offset, request, service.limits);
  if (upload.spec.length === undefined) await service.reserve(parseCount(request, "content-length") ?? 0);
  const expected = parseDigest(request, "content-digest");
  const hash = createHash("sha256");
  const body = bodyOf(request, expected === undefined ? undefined : (bytes) => void hash.update(bytes));
  await upload.append({
    offset,
    body,
    limit,
    idleSeconds: service.limits.idleSeconds,
    check: () => {
      if (expected !== undefined && hash.digest("hex") !== expected) {
        throw new Problem("content-digest", "the bytes of this append were dropped", {
          fields: { expectedOffset: offset },
        });
      }
    },
  });
}

/** Makes a whole upload a file of its save; call exclusively. */
async function complete(run: Run, save: Save, upload: Upload, request: Request): Promise<SaveFile> {
  const { spec, offset } = upload;
  if (spec.length !== undefined && offset !== spec.length) {
    throw new Problem("length-mismatch", `the upload has ${offset} bytes, announced were ${spec.length}`, {
      fields: { expectedOffset: offset },
      headers: { "upload-offset": String(offset) },
    });
  }
  const digest = await upload.finish();
  const expected = [spec.sha256, parseDigest(request, "repr-digest")];
  return await save.queue(async () => {
    save.checkOpen();
    if (expected.some((sha256) => sha256 !== undefined && sha256 !== digest.sha256)) {
      await save.dropUpload(upload);
      throw new Problem("digest-mismatch", "the upload has another SHA-256 than announced; it was dropped");
    }
    await run.blobs.adopt(upload.path, digest);
    const { sha256, length } = digest;
    await save.record({ type: "file", file: spec.file, sha256, length, upload: spec.id });
    await rm(upload.path, { force: true });
    run.events.publish("file-stored", {
      save: save.begun.id,
      name: save.begun.name,
      file: spec.file,
      length,
    });
    return { sha256, length };
  });
}

/** Routes of uploads. */
export const uploadRoutes: readonly Route[] = [
  route({
    method: "POST",
    path: "/v1/runs/{run}/saves/{save}/uploads",
    operation: "createUpload",
    tag: TAG,
    summary:
      "Creates an upload, with Upload-Length and Repr-Digest where they are known. `file` is the name that the file " +
      "gets in the save; without it the bytes become a blob, for a rank manifest or a link to name.",
    scopes: ["write"],
    query: uploadQuery,
    answers: { 201: { description: "Location of the upload; Upload-Limit" } },
    async handle({ service, request, params, query, mount }): Promise<Response> {
      const { run, save } = await saveOf(service, params);
      const upload = await save.queue(() => start(service, save, request, query.file));
      const { id, length } = upload.spec;
      return empty(201, {
        ...standing(upload.offset, length, false, service.limits),
        location: `${mount}/v1/runs/${run.name}/saves/${save.begun.id}/uploads/${id}`,
      });
    },
  }),
  route({
    method: "GET",
    path: PATH,
    operation: "getUpload",
    tag: TAG,
    summary: "Where an upload stands: Upload-Offset, Upload-Complete, Upload-Length. Usually asked by HEAD.",
    scopes: ["write"],
    query: noQuery,
    answers: { 204: { description: "In headers" } },
    async handle({ service, params }): Promise<Response> {
      const { save } = await saveOf(service, params);
      const done = save.finished.get(params.upload);
      if (done !== undefined) return empty(204, standing(done.length, done.length, true, service.limits));
      const upload = uploadOf(save, params.upload);
      // A request that still writes is one whose client is gone: this one asks where to go on.
      return upload.exclusively(async () =>
        empty(204, standing(upload.offset, upload.spec.length, false, service.limits)),
      );
    },
  }),
  route({
    method: "PATCH",
    path: PATH,
    operation: "appendUpload",
    tag: TAG,
    summary:
      "Appends bytes at Upload-Offset. Upload-Complete: ?1 ends the upload, after which it is a file of the save. " +
      "What arrives before a connection is cut is kept.",
    scopes: ["write"],
    query: noQuery,
    content: [PARTIAL],
    answers: {
      201: { description: "Complete; Location of the blob" },
      204: { description: "Appended; Upload-Offset is the new one" },
    },
    async handle({ service, request, params, mount }): Promise<Response> {
      const { run, save } = await saveOf(service, params);
      const offset = parseCount(request, "upload-offset");
      const last = parseBoolean(request, "upload-complete");
      if (offset === undefined || last === undefined) {
        throw new Problem("malformed", "Upload-Offset and Upload-Complete are both needed");
      }
      const done = save.finished.get(params.upload);
      if (done !== undefined) {
        if (last && offset === done.length) return stored(mount, run, done, service.limits);
        throw new Problem("not-open", "the upload is complete", { fields: { expectedOffset: done.length } });
      }
      const upload = uploadOf(save, params.upload);
      return upload.exclusively(async () => {
        save.checkOpen();
        uploadOf(save, params.upload);
        await append(service, upload, request, offset);
        const { file, length } = upload.spec;
        run.events.publish("upload-progress", {
          save: save.begun.id,
          name: save.begun.name,
          file,
          offset: upload.offset,
          length,
        });
        if (!last) return empty(204, standing(upload.offset, length, false, service.limits));
        return stored(mount, run, await complete(run, save, upload, request), service.limits);
      });
    },
  }),
  route({
    method: "DELETE",
    path: PATH,
    operation: "dropUpload",
    tag: TAG,
    summary: "Drops an upload and its bytes.",
    scopes: ["write"],
    query: noQuery,
    answers: { 204: { description: "Dropped" } },
    async handle({ service, request, params }): Promise<Response> {
      const { save } = await saveOf(service, params);
      checkWritable(request, undefined);
      return save.queue(async () => {
        const upload = uploadOf(save, params.upload);
        upload.stop();
        await save.dropUpload(upload);
        return empty();
      });
    },
  }),
];

function uploadOf(save: Save, id: string): Upload {
  const upload = save.uploads.get(id);
  if (upload === undefined) {
    throw new Problem("not-found", `the save of ${save.begun.name} has no upload ${id}`);
  }
  return upload;
}

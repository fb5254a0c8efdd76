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
import { type ServiceLimits, uploadLimit } from "../limits.ts";
import { Problem } from "../problem.ts";
import type { Run } from "../run.ts";
import type { Save, SaveFile } from "../save.ts";
import type { Service } from "../service.ts";
import type { Append, Upload, UploadSpec } from "../upload.ts";
import { CONDITIONS, STANDING } from "./headers.ts";
import { empty, type Route, route } from "./route.ts";
import { saveOf } from "./save-routes.ts";
import { noQuery, uploadQuery } from "./schemas.ts";

const TAG = "uploads";
const PATH = "/v1/runs/{run}/saves/{save}/uploads/{upload}";

/** Media type of an append. */
const PARTIAL = "application/partial-upload";

/** Uploads of one save for each file that it may have: what became of them is remembered as long as the save. */
const UPLOADS_PER_FILE = 10;

/** Where an upload stands. */
interface Standing {
  readonly id: string;
  readonly offset: number;
  readonly length: number | undefined;
  readonly complete: boolean;
}

/** The upload that a repeated request began, wherever it stands by now. @throws Problem when it was dropped. */
function begunUpload(save: Save, { id, length }: UploadSpec): Standing {
  const done = save.finished.get(id);
  if (done !== undefined) return { id, offset: done.length, length: done.length, complete: true };
  const upload = save.uploads.get(id);
  if (upload !== undefined) return { id, offset: upload.offset, length, complete: false };
  throw new Problem("not-open", "the upload that the idempotency key began was dropped");
}

/** Starts an upload; call in the save's queue. */
async function start(
  service: Service,
  save: Save,
  request: Request,
  file: string | undefined,
): Promise<Standing> {
  save.checkOpen();
  const { limits } = service;
  const key = idempotencyKey(request);
  const length = parseCount(request, "upload-length");
  const sha256 = parseDigest(request, "repr-digest");
  const known = key === undefined ? undefined : save.keyed.get(key);
  if (known !== undefined) {
    if (known.file === file && known.length === length && known.sha256 === sha256) {
      return begunUpload(save, known);
    }
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
  if (save.begunUploads >= limits.filesPerSave * UPLOADS_PER_FILE) {
    throw new Problem("limit", `the save began ${save.begunUploads} uploads, which is the most`, {
      fields: { limit: limits.filesPerSave * UPLOADS_PER_FILE },
    });
  }
  if ((length ?? 0) > limits.fileBytes) {
    throw new Problem("too-large", `the file has ${length} bytes, allowed are ${limits.fileBytes}`, {
      fields: { limit: limits.fileBytes },
    });
  }
  await service.reserve(length ?? 0);
  const { spec, offset } = await save.addUpload({ id: randomUUID(), file, length, sha256, key });
  return { id: spec.id, offset, length, complete: false };
}

/** Where an upload stands, as headers. */
function headersOf(
  { offset, length, complete }: Omit<Standing, "id">,
  limits: ServiceLimits,
): Record<string, string> {
  return {
    "upload-offset": String(offset),
    "upload-complete": complete ? "?1" : "?0",
    ...(length === undefined ? {} : { "upload-length": String(length) }),
    "upload-limit": uploadLimit(limits),
  };
}

function stored(mount: string, run: Run, { sha256, length }: SaveFile, limits: ServiceLimits): Response {
  return empty(201, {
    ...headersOf({ offset: length, length, complete: true }, limits),
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

/** What a request brings to an upload. @throws Problem when it says that it brings more than may be. */
function appendOf(service: Service, upload: Upload, request: Request, offset: number): Append {
  const limit = appendLimit(upload, offset, request, service.limits);
  const expected = parseDigest(request, "content-digest");
  const hash = createHash("sha256");
  return {
    offset,
    body: bodyOf(request, expected === undefined ? undefined : (bytes) => void hash.update(bytes)),
    bytes: parseCount(request, "content-length"),
    limit,
    idleSeconds: service.limits.idleSeconds,
    check: () => {
      if (expected !== undefined && hash.digest("hex") !== expected) {
        throw new Problem("content-digest", "the bytes of this append were dropped", {
          fields: { expectedOffset: offset },
        });
      }
    },
  };
}

/** Makes a whole upload a file of its save; call in its turn. */
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
    method: "OPTIONS",
    path: "/v1/runs/{run}/saves/{save}/uploads",
    operation: "uploadLimits",
    tag: TAG,
    summary: "Upload-Limit: how large a file may be, and one append to it.",
    scopes: ["write"],
    query: noQuery,
    answers: { 204: { description: "In headers", headers: ["Upload-Limit"] } },
    async handle({ service, params }): Promise<Response> {
      await saveOf(service, params);
      return empty(204, { "upload-limit": uploadLimit(service.limits), allow: "OPTIONS, POST" });
    },
  }),
  route({
    method: "POST",
    path: "/v1/runs/{run}/saves/{save}/uploads",
    operation: "createUpload",
    tag: TAG,
    summary:
      "Creates an upload, with Upload-Length and Repr-Digest where they are known. `file` is the name that the file " +
      "gets in the save; without it the bytes become a blob, for a rank manifest or a link to name. With an " +
      "Idempotency-Key, a repeated request answers where the upload it began stands by now.",
    scopes: ["write"],
    query: uploadQuery,
    headers: ["Idempotency-Key", "Repr-Digest", "Upload-Complete", "Upload-Length"],
    answers: {
      201: { description: "Location of the upload; Upload-Limit", headers: ["Location", ...STANDING] },
    },
    async handle({ service, request, params, query, mount }): Promise<Response> {
      const { run, save } = await saveOf(service, params);
      const begun = await save.queue(() => start(service, save, request, query.file));
      return empty(201, {
        ...headersOf(begun, service.limits),
        location: `${mount}/v1/runs/${run.name}/saves/${save.begun.id}/uploads/${begun.id}`,
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
    answers: { 204: { description: "In headers", headers: STANDING } },
    async handle({ service, params }): Promise<Response> {
      const { save } = await saveOf(service, params);
      const done = save.finished.get(params.upload);
      if (done !== undefined) {
        const { length } = done;
        return empty(204, headersOf({ offset: length, length, complete: true }, service.limits));
      }
      const upload = uploadOf(save, params.upload);
      // A request that still writes is one whose client is gone: this one asks where to go on.
      return upload.exclusively(async () => {
        const { offset, spec } = upload;
        return empty(204, headersOf({ offset, length: spec.length, complete: false }, service.limits));
      });
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
    headers: ["Content-Digest", "Repr-Digest", "Upload-Complete", "Upload-Offset"],
    neededHeaders: ["Upload-Complete", "Upload-Offset"],
    content: [PARTIAL],
    answers: {
      201: {
        description: "Complete; Location of the blob",
        headers: ["ETag", "Location", "Repr-Digest", ...STANDING],
      },
      204: { description: "Appended; Upload-Offset is the new one", headers: STANDING },
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
      save.checkOpen();
      if (upload.spec.length === undefined) await service.reserve(parseCount(request, "content-length") ?? 0);
      const { length } = upload.spec;
      const tell = (): void =>
        run.events.publish("upload-progress", {
          save: save.begun.id,
          name: save.begun.name,
          file: upload.spec.file,
          offset: upload.offset,
          length,
        });
      const { written, file } = await upload.append(
        appendOf(service, upload, request, offset),
        async (written) => {
          save.checkOpen();
          uploadOf(save, params.upload);
          if (!last) return { written };
          await written;
          tell();
          return { written, file: await complete(run, save, upload, request) };
        },
      );
      await written;
      if (!last) tell();
      if (file !== undefined) return stored(mount, run, file, service.limits);
      return empty(204, headersOf({ offset: upload.offset, length, complete: false }, service.limits));
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
    headers: CONDITIONS,
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

/**
 * Committed checkpoints: listed, looked at, read, pinned, deleted. Their content never changes.
 *
 * @module
 */
import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "../../stores/directory-errors.ts";
import { MANIFEST_FILE } from "../../stores/names.ts";
import { answerContent, type Content, fileBytes } from "../content.ts";
import { checkWritable, digestField } from "../http-fields.ts";
import type { CheckpointSummary } from "../manifests.ts";
import type { Note } from "../notes.ts";
import { Problem } from "../problem.ts";
import type { Run } from "../run.ts";
import type { Service } from "../service.ts";
import { CONDITIONS, CONTENT, RANGES } from "./headers.ts";
import { empty, json, type Route, route, taggedJson } from "./route.ts";
import { checkpointAnswer, filesAnswer, noQuery, type PageQuery, pageQuery, patchBody } from "./schemas.ts";

const TAG = "checkpoints";
const PATH = "/v1/runs/{run}/checkpoints/{checkpoint}";
const PAGE = 100;

/** A checkpoint as its resource shows it: immutable content, and the note that is not. */
interface Shown {
  readonly etag: string;
  readonly note: Note;
  readonly value: Readonly<Record<string, unknown>>;
}

async function show(service: Service, run: Run, name: string): Promise<Shown> {
  const summary: CheckpointSummary = await service.manifests.summary(run, name);
  const note = await run.notes.read(name);
  const { step, worldSize, bytes, createdAt } = summary.info ?? {};
  const { pinned, labels, metrics } = note;
  const readable = summary.info !== undefined;
  return {
    etag: `"${summary.sha256.slice(0, 32)}-${note.revision}"`,
    note,
    value: {
      ...{ name, step, worldSize, bytes, createdAt, manifest: summary.sha256, readable },
      ...{ exportable: summary.exportable, pinned, labels, metrics },
    },
  };
}

/** A page of names after `after`, and the URL of the next one. */
async function page(
  run: Run,
  { limit = PAGE, after = "", names: form }: PageQuery,
  path: string,
): Promise<{ readonly names: readonly string[]; readonly headers: Record<string, string> }> {
  const names = (await run.store.list()).filter((name) => name > after);
  const shown = names.slice(0, limit);
  const more =
    names.length > limit
      ? `<${path}?limit=${limit}&after=${shown.at(-1)}${form === undefined ? "" : "&names=only"}>; rel="next"`
      : undefined;
  return { names: shown, headers: more === undefined ? {} : { link: more } };
}

/** The newest checkpoint: the highest step by name, else the last name. */
function newest(names: readonly string[]): string | undefined {
  const stepOf = (name: string): number => Number(/^step-([0-9]{8,16})$/.exec(name)?.[1] ?? -1);
  return names.toSorted((a, b) => stepOf(a) - stepOf(b) || (a < b ? -1 : 1)).at(-1);
}

/** Whether a request would rather have JSON: it names it, and MessagePack not before it. */
function wantsJson(request: Request): boolean {
  const types = (request.headers.get("accept") ?? "").split(",").map((item) => item.split(";")[0]!.trim());
  return (
    types.find((type) => /^application\/(json|msgpack|vnd\.msgpack)$/i.test(type))?.endsWith("json") === true
  );
}

/** A file of a committed checkpoint, with ranges. */
async function answerFile(service: Service, request: Request, run: Run, name: string, file: string) {
  const { sha256 } = await service.manifests.summary(run, name);
  const path = join(run.root, name, file);
  const stat = await lstat(path).catch((error: unknown) => {
    if (isMissing(error)) return undefined;
    throw error;
  });
  if (stat?.isFile() !== true) throw new Problem("not-found", `checkpoint ${name} has no file ${file}`);
  const isManifest = file === MANIFEST_FILE;
  const content: Content = {
    length: stat.size,
    // The manifest names the content of every file; a deleted checkpoint's name may come back with another.
    etag: isManifest ? `"${sha256}"` : `"${sha256.slice(0, 32)}-${file}"`,
    type: isManifest ? "application/msgpack" : "application/octet-stream",
    immutable: false,
    headers: isManifest ? { "repr-digest": digestField(sha256), vary: "accept" } : {},
    read: (...range) => fileBytes(path, ...range),
  };
  return answerContent(request, content, service.transfers);
}

/** Routes of committed checkpoints. */
export const checkpointRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/v1/runs/{run}/checkpoints",
    operation: "listCheckpoints",
    tag: TAG,
    summary:
      "Committed checkpoints by name, a page at a time; Link names the next page. None for a run that is not there.",
    scopes: ["read"],
    query: pageQuery,
    answers: { 200: { description: "A page", headers: ["Link"] } },
    async handle({ service, params, query, mount }): Promise<Response> {
      const known = await service.runNames();
      if (!known.includes(params.run)) return json({ checkpoints: [] });
      const run = await service.run(params.run);
      const { names, headers } = await page(run, query, `${mount}/v1/runs/${run.name}/checkpoints`);
      if (query.names === "only") return json({ checkpoints: names.map((name) => ({ name })) }, 200, headers);
      const shown: unknown[] = [];
      for (const name of names) {
        // One that is deleted meanwhile is left out.
        const found = await show(service, run, name).catch(() => undefined);
        if (found !== undefined) shown.push(found.value);
      }
      return json({ checkpoints: shown }, 200, headers);
    },
  }),
  route({
    method: "GET",
    path: "/v1/runs/{run}/checkpoints/latest",
    operation: "latestCheckpoint",
    tag: TAG,
    summary: "Redirects to the newest committed checkpoint.",
    scopes: ["read"],
    query: noQuery,
    answers: { 307: { description: "Its Location", headers: ["Location"] } },
    async handle({ service, params, mount }): Promise<Response> {
      const run = await service.run(params.run);
      const name = newest(await run.store.list());
      if (name === undefined) throw new Problem("not-found", `run ${run.name} has no checkpoint`);
      return empty(307, { location: `${mount}/v1/runs/${run.name}/checkpoints/${name}` });
    },
  }),
  route({
    method: "GET",
    path: PATH,
    operation: "getCheckpoint",
    tag: TAG,
    summary: "A committed checkpoint.",
    scopes: ["read"],
    query: noQuery,
    headers: CONDITIONS,
    answers: {
      200: { description: "The checkpoint", schema: checkpointAnswer, headers: ["ETag"] },
    },
    async handle({ service, request, params }): Promise<Response> {
      const run = await service.run(params.run);
      const { etag, value } = await show(service, run, params.checkpoint);
      return taggedJson(request, value, etag);
    },
  }),
  route({
    method: "PATCH",
    path: PATH,
    operation: "noteCheckpoint",
    tag: TAG,
    summary: "Pins or unpins a checkpoint, or replaces its labels or its metrics.",
    scopes: ["admin"],
    query: noQuery,
    headers: CONDITIONS,
    body: patchBody,
    answers: { 200: { description: "The checkpoint", schema: checkpointAnswer, headers: ["ETag"] } },
    async handle({ service, request, params, body }): Promise<Response> {
      const run = await service.run(params.run);
      return run.queue(async () => {
        const { etag, note } = await show(service, run, params.checkpoint);
        checkWritable(request, etag);
        const { pinned = note.pinned, labels = note.labels, metrics = note.metrics } = body;
        const revision = note.revision + 1;
        await run.notes.write(params.checkpoint, { revision, pinned, labels, metrics });
        const shown = await show(service, run, params.checkpoint);
        return json(shown.value, 200, { etag: shown.etag });
      });
    },
  }),
  route({
    method: "DELETE",
    path: PATH,
    operation: "deleteCheckpoint",
    tag: TAG,
    summary: "Deletes a checkpoint; bytes that no other one needs are freed later.",
    scopes: ["delete"],
    query: noQuery,
    headers: CONDITIONS,
    answers: { 204: { description: "Deleted" } },
    async handle({ service, request, params }): Promise<Response> {
      const run = await service.run(params.run);
      const name = params.checkpoint;
      return run.queue(async () => {
        const { etag, note } = await show(service, run, name);
        checkWritable(request, etag);
        if (note.pinned) throw new Problem("pinned", `checkpoint ${name} is pinned`);
        await run.store.delete(name);
        await run.notes.remove(name);
        run.events.publish("checkpoint-deleted", { name });
        return empty();
      });
    },
  }),
  route({
    method: "GET",
    path: `${PATH}/manifest`,
    operation: "getManifest",
    tag: TAG,
    summary:
      "The manifest, byte for byte as it was committed; what is in it as JSON for Accept: application/json.",
    scopes: ["read"],
    query: noQuery,
    headers: RANGES,
    answers: {
      200: {
        description: "MessagePack, or JSON",
        type: ["application/msgpack", "application/json"],
        headers: [...CONTENT, "Repr-Digest"],
      },
      206: {
        description: "A range of it as MessagePack",
        type: "application/msgpack",
        headers: [...CONTENT, "Content-Range", "Repr-Digest"],
      },
    },
    async handle({ service, request, params }): Promise<Response> {
      const run = await service.run(params.run);
      if (wantsJson(request)) {
        const { manifest, sha256 } = await service.manifests.open(run, params.checkpoint);
        return taggedJson(request, manifest, `"${sha256.slice(0, 32)}-json"`, { vary: "accept" });
      }
      return answerFile(service, request, run, params.checkpoint, MANIFEST_FILE);
    },
  }),
  route({
    method: "GET",
    path: `${PATH}/files`,
    operation: "listFiles",
    tag: TAG,
    summary: "The files of a checkpoint.",
    scopes: ["read"],
    query: noQuery,
    headers: CONDITIONS,
    answers: { 200: { description: "The files", schema: filesAnswer, headers: ["ETag"] } },
    async handle({ service, request, params }): Promise<Response> {
      const run = await service.run(params.run);
      const { sha256 } = await service.manifests.summary(run, params.checkpoint);
      const names = await run.store.files(params.checkpoint);
      const files = names.map((file) => ({ file }));
      return taggedJson(request, { files }, `"${sha256.slice(0, 32)}-files"`);
    },
  }),
  route({
    method: "GET",
    path: `${PATH}/files/{file}`,
    operation: "getFile",
    tag: TAG,
    summary: "A file of a checkpoint, or a range of it.",
    scopes: ["read"],
    query: noQuery,
    headers: RANGES,
    answers: {
      200: { description: "The bytes", type: "application/octet-stream", headers: CONTENT },
      206: {
        description: "A range of them",
        type: "application/octet-stream",
        headers: [...CONTENT, "Content-Range"],
      },
    },
    async handle({ service, request, params }): Promise<Response> {
      const run = await service.run(params.run);
      return answerFile(service, request, run, params.checkpoint, params.file);
    },
  }),
];

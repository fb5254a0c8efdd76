/**
 * Files of a save: taking up bytes that are there, looking at them, removing them, and the ranks' manifests.
 *
 * @module
 */
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { sha256Hex } from "../../digest.ts";
import { decodeBody, listFaults, type Manifest } from "../../manifest.ts";
import { partFaults } from "../../manifest-check.ts";
import { partFile } from "../../rank-file.ts";
import { readWhole } from "../body.ts";
import { missingRanks } from "../commit.ts";
import { checkWritable, parseDigest } from "../http-fields.ts";
import { MOST_FAULTS, Problem } from "../problem.ts";
import type { Run } from "../run.ts";
import type { Save } from "../save.ts";
import type { Service } from "../service.ts";
import { answerBlob } from "./blob-routes.ts";
import { CONDITIONS, CONTENT, RANGES } from "./headers.ts";
import { empty, json, type Route, route } from "./route.ts";
import { commitAndTell, saveOf } from "./save-routes.ts";
import { linkBody, noQuery } from "./schemas.ts";

const TAG = "files";
const PATH = "/v1/runs/{run}/saves/{save}/files/{file}";

/** Reads a rank's manifest. @throws Problem when it is not one, or not of this rank and save. */
function decodePart(bytes: Uint8Array, rank: number, save: Save): Manifest {
  let part: Manifest;
  try {
    part = decodeBody(bytes);
  } catch (error) {
    if (error instanceof CheckpointError) throw new Problem("invalid", error.message, { cause: error });
    throw error;
  }
  const { step, worldSize } = save.begun;
  if ((step ?? part.step) !== part.step || (worldSize ?? part.worldSize) !== part.worldSize) {
    throw new Problem(
      "invalid",
      `the manifest is for step ${part.step} of ${part.worldSize} ranks, the save for ${step} of ${worldSize}`,
    );
  }
  if (rank >= part.worldSize || part.rankValues.length !== 1) {
    throw new Problem("invalid", `the manifest is not that of rank ${rank} of ${part.worldSize}`);
  }
  const faults = partFaults(part);
  if (faults.length > 0) {
    throw new Problem("invalid", `the manifest of rank ${rank}: ${listFaults(faults)}`, {
      fields: { faults: faults.slice(0, MOST_FAULTS) },
    });
  }
  return part;
}

/** Makes what a rank's manifest lists files of the save. @throws Problem that lists digests which are not there. */
async function takeUp(run: Run, save: Save, part: Manifest): Promise<void> {
  const unknown: string[] = [];
  for (const { name, sha256, length } of part.files) {
    const held = save.files.get(name);
    if (held?.sha256 === sha256) continue;
    if (held !== undefined || save.isTaken(name)) {
      throw new Problem("already-exists", `the save of ${save.begun.name} has another file ${name}`);
    }
    const blob = await run.blobs.findSound(sha256);
    if (blob === undefined || blob.length !== length) unknown.push(sha256);
    else await save.record({ type: "file", file: name, sha256, length });
  }
  if (unknown.length > 0) {
    throw new Problem(
      "blob-unknown",
      `run ${run.name} lacks ${unknown.length} blobs that the manifest lists`,
      {
        fields: { blobs: unknown },
      },
    );
  }
}

/** The digest of a committed file, by its checkpoint's manifest. */
async function digestOf(
  service: Service,
  run: Run,
  from: { readonly checkpoint: string; readonly file: string },
): Promise<string> {
  const { manifest } = await service.manifests.open(run, from.checkpoint);
  const found = manifest.files.find(({ name }) => name === from.file);
  if (found !== undefined) return found.sha256;
  throw new Problem("blob-unknown", `checkpoint ${from.checkpoint} lists no file ${from.file}`);
}

/** Takes a rank's manifest in, and what it lists. */
async function take(
  run: Run,
  save: Save,
  request: Request,
  { rank, bytes, sha256 }: { readonly rank: number; readonly bytes: Uint8Array; readonly sha256: string },
): Promise<void> {
  const file = partFile(rank);
  const held = save.files.get(file);
  checkWritable(request, held === undefined ? undefined : `"${held.sha256}"`);
  if (held !== undefined && !request.headers.has("if-match")) {
    throw new Problem("already-exists", `rank ${rank} has another manifest; If-Match replaces it`);
  }
  await takeUp(run, save, decodePart(bytes, rank, save));
  const { length } = await run.blobs.put(bytes);
  await save.record({ type: "file", file, sha256, length });
  run.events.publish("file-stored", { save: save.begun.id, name: save.begun.name, file, length });
}

/** Routes of files of saves. */
export const fileRoutes: readonly Route[] = [
  route({
    method: "POST",
    path: "/v1/runs/{run}/saves/{save}/files",
    operation: "linkFile",
    tag: TAG,
    summary: "Makes a blob of the run a file of the save: nothing is uploaded.",
    scopes: ["write"],
    query: noQuery,
    body: linkBody,
    answers: { 201: { description: "It is a file of the save" } },
    async handle({ service, params, body }): Promise<Response> {
      const { run, save } = await saveOf(service, params);
      return save.queue(async () => {
        save.checkOpen();
        const { file } = body;
        const sha256 = body.sha256 ?? (await digestOf(service, run, body.from!));
        const held = save.files.get(file);
        if (held?.sha256 === sha256) return json({ file, ...held }, 201);
        if (save.isTaken(file)) {
          throw new Problem("already-exists", `the save of ${save.begun.name} has a file ${file} already`);
        }
        const blob = await run.blobs.findSound(sha256);
        if (blob === undefined) {
          throw new Problem("blob-unknown", `run ${run.name} has no blob ${sha256}`, {
            fields: { blobs: [sha256] },
          });
        }
        await save.record({ type: "file", file, sha256, length: blob.length });
        return json({ file, sha256, length: blob.length }, 201);
      });
    },
  }),
  route({
    method: "GET",
    path: PATH,
    operation: "getSaveFile",
    tag: TAG,
    summary: "A file of a save that is not committed yet.",
    scopes: ["write"],
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
      const { run, save } = await saveOf(service, params);
      save.checkOpen();
      const held = save.files.get(params.file);
      const missing = `the save of ${save.begun.name} has no file ${params.file}`;
      if (held === undefined) throw new Problem("not-found", missing);
      return answerBlob({ service, request }, run, held.sha256, { immutable: false, missing });
    },
  }),
  route({
    method: "DELETE",
    path: PATH,
    operation: "removeSaveFile",
    tag: TAG,
    summary: "Takes a file out of a save. Again: nothing.",
    scopes: ["write"],
    query: noQuery,
    headers: CONDITIONS,
    answers: { 204: { description: "It is no longer a file of the save" } },
    async handle({ service, request, params }): Promise<Response> {
      const { save } = await saveOf(service, params);
      return save.queue(async () => {
        save.checkOpen();
        const held = save.files.get(params.file);
        if (held === undefined && save.removed.has(params.file)) return empty();
        if (held === undefined) {
          throw new Problem("not-found", `the save of ${save.begun.name} has no file ${params.file}`);
        }
        checkWritable(request, `"${held.sha256}"`);
        await save.record({ type: "remove", file: params.file });
        return empty();
      });
    },
  }),
  route({
    method: "PUT",
    path: "/v1/runs/{run}/saves/{save}/ranks/{rank}/manifest",
    operation: "putRankManifest",
    tag: TAG,
    summary:
      "What one rank contributes. The files that it lists must be there, under their names or as blobs. When all ranks' " +
      'are there, a commit makes the manifest of them; a save with commit "auto" is committed by the last.',
    scopes: ["write"],
    query: noQuery,
    headers: [...CONDITIONS, "Content-Digest", "Repr-Digest"],
    content: ["application/msgpack", "application/vnd.msgpack", "application/octet-stream"],
    answers: {
      200: { description: "It was there", headers: ["ETag"] },
      201: {
        description: "Taken; `committed` says whether it was the last of an automatic commit",
        headers: ["ETag"],
      },
    },
    async handle({ service, request, params, principal }): Promise<Response> {
      const { run, save } = await saveOf(service, params);
      const rank = Number(params.rank);
      const { manifestBytes: limit, idleSeconds } = service.limits;
      const bytes = await readWhole(request, { limit, idleSeconds });
      const sha256 = sha256Hex(bytes);
      const claimed = parseDigest(request, "content-digest") ?? parseDigest(request, "repr-digest");
      if (claimed !== undefined && claimed !== sha256) {
        throw new Problem("content-digest", "the manifest does not match its digest");
      }
      return save.queue(async () => {
        const etag = `"${sha256}"`;
        const file = partFile(rank);
        const held = save.files.get(file);
        const automatic = save.begun.commit === "auto";
        const known = held?.sha256 === sha256;
        if (known && automatic && save.state === "committed") return json({ committed: true }, 200, { etag });
        save.checkOpen();
        if (!known) await take(run, save, request, { rank, bytes, sha256 });
        const last = automatic && missingRanks(save).length === 0;
        if (last && !principal.allows(["commit"])) {
          throw new Problem("insufficient-scope", "the last manifest commits, which this token may not");
        }
        if (last) await commitAndTell(service, run, save);
        return json({ committed: last }, known ? 200 : 201, { etag });
      });
    },
  }),
];

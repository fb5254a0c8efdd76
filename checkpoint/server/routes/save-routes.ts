/**
 * Saves: begin, look, commit, abort.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { partFile } from "../../rank-file.ts";
import { exists } from "../../stores/directory-files.ts";
import { nodeFileSystem } from "../../stores/file-system.ts";
import { MANIFEST_FILE } from "../../stores/names.ts";
import { commitSave, missingRanks } from "../commit.ts";
import { checkWritable, idempotencyKey, isUnchanged } from "../http-fields.ts";
import type { BeginEntry } from "../journal.ts";
import { uploadLimit } from "../limits.ts";
import { Problem } from "../problem.ts";
import type { Run } from "../run.ts";
import { createSave, type Save } from "../save.ts";
import type { Service } from "../service.ts";
import { CONDITIONS } from "./headers.ts";
import { empty, json, type Route, route } from "./route.ts";
import { type BeginBody, beginBody, type CommitBody, commitBody, noQuery, saveAnswer } from "./schemas.ts";

const TAG = "saves";

/** The save that a request names. @throws Problem when there is none. */
export async function saveOf(
  service: Service,
  params: { readonly run: string; readonly save: string },
): Promise<{ readonly run: Run; readonly save: Save }> {
  const run = await service.run(params.run);
  const save = run.saves.get(params.save);
  if (save === undefined) throw new Problem("not-found", `run ${run.name} has no save ${params.save}`);
  const late = save.state === "open" && save.begun.expiresAt <= service.now();
  if (late || save.state === "expired") {
    throw new Problem("expired", `the save of ${save.begun.name} has expired`);
  }
  return { run, save };
}

/** Entity tag of a save: it changes with everything that happens to it. */
function tagOf(save: Save): string {
  return `"${save.begun.id.slice(0, 8)}-${save.revision}"`;
}

/** A save as JSON. */
function describeSave(run: Run, save: Save): Readonly<Record<string, unknown>> {
  const { id, name, step, worldSize, commit, labels, createdAt, expiresAt } = save.begun;
  return {
    id,
    run: run.name,
    checkpoint: name,
    step,
    worldSize,
    commit,
    state: save.state,
    labels,
    createdAt,
    expiresAt,
    manifest: save.manifest,
    committedAt: save.state === "committed" ? save.endedAt : undefined,
    files: [...save.files].map(([file, stored]) => ({ file, ...stored })),
    uploads: [...save.uploads.values()].map(({ spec, offset }) => ({
      id: spec.id,
      file: spec.file,
      offset,
      length: spec.length,
    })),
    missingRanks: save.state === "open" ? missingRanks(save) : [],
  };
}

/** Commits in the save's queue and tells subscribers. Call in that queue. */
export async function commitAndTell(service: Service, run: Run, save: Save): Promise<string> {
  const sha256 = await commitSave(run, save, { now: service.now(), prove: service.proveCommits });
  const { name, labels } = save.begun;
  // A note of a checkpoint of this name that was deleted by hand says nothing about this one.
  await run.notes.write(name, { revision: 0, pinned: false, labels, metrics: {} });
  run.events.publish("checkpoint-committed", { save: save.begun.id, name, manifest: sha256 });
  return sha256;
}

async function begin(service: Service, run: Run, body: BeginBody, key: string | undefined): Promise<Save> {
  const name = body.name ?? `step-${String(body.step).padStart(8, "0")}`;
  const wanted = { name, step: body.step, worldSize: body.worldSize, commit: body.commit ?? "explicit" };
  const saves = [...run.saves.values()];
  const labels = body.labels ?? {};
  const seconds = Math.min(body.expiresIn ?? service.limits.saveSeconds, service.limits.saveSeconds);
  const known = key === undefined ? undefined : saves.find((save) => save.begun.key === key);
  if (known !== undefined) {
    const same = Object.entries(wanted).every(
      ([field, value]) => known.begun[field as keyof BeginEntry] === value,
    );
    const lives = known.begun.expiresAt - known.begun.createdAt === seconds * 1000;
    if (same && lives && isDeepStrictEqual(known.begun.labels, labels)) return known;
    throw new Problem("key-reused", "the idempotency key began another save");
  }
  if (await exists(nodeFileSystem, `${run.root}/${name}`)) {
    throw new Problem("already-committed", `there is a checkpoint ${name} in run ${run.name}`);
  }
  const limit = service.limits.savesPerRun;
  const open = saves.filter((save) => save.state === "open" && save.begun.expiresAt > service.now());
  if (open.length >= limit) {
    throw new Problem("limit", `run ${run.name} has ${open.length} open saves, allowed are ${limit}`, {
      fields: { limit },
      headers: { "retry-after": "60" },
    });
  }
  await service.reserve(body.bytes ?? 0);
  const now = service.now();
  const begun: BeginEntry = {
    type: "begin",
    id: randomUUID(),
    ...wanted,
    labels,
    key,
    createdAt: now,
    expiresAt: now + seconds * 1000,
  };
  const save = await createSave(run.savesFolder, begun);
  run.saves.set(begun.id, save);
  run.events.publish("save-begun", { save: begun.id, name });
  return save;
}

/** Whether a save holds the manifests that a commit means, as far as it says. */
function isMeant(save: Save, { manifest, ranks }: CommitBody, held: string | undefined): boolean {
  if (manifest !== undefined && manifest !== held) return false;
  if (ranks === undefined) return true;
  if (ranks.length !== save.begun.worldSize) return false;
  return ranks.every((sha256, rank) => save.files.get(partFile(rank))?.sha256 === sha256);
}

/** Routes of saves. */
export const saveRoutes: readonly Route[] = [
  route({
    method: "POST",
    path: "/v1/runs/{run}/saves",
    operation: "beginSave",
    tag: TAG,
    summary:
      "Begins a save; Upload-Limit says how large its files may be. With an Idempotency-Key, a repeated request answers " +
      "the save it began.",
    scopes: ["write"],
    query: noQuery,
    headers: ["Idempotency-Key"],
    body: beginBody,
    answers: {
      201: { description: "The save", schema: saveAnswer, headers: ["ETag", "Location", "Upload-Limit"] },
    },
    async handle({ service, request, params, body, mount }): Promise<Response> {
      const run = await service.makeRun(params.run);
      const save = await run.queue(() => begin(service, run, body, idempotencyKey(request)));
      return json(describeSave(run, save), 201, {
        location: `${mount}/v1/runs/${run.name}/saves/${save.begun.id}`,
        etag: tagOf(save),
        "upload-limit": uploadLimit(service.limits),
      });
    },
  }),
  route({
    method: "GET",
    path: "/v1/runs/{run}/saves",
    operation: "listSaves",
    tag: TAG,
    summary: "Saves that are open.",
    scopes: ["read", "write"],
    query: noQuery,
    answers: { 200: { description: "The open saves" } },
    async handle({ service, params }): Promise<Response> {
      const run = await service.run(params.run);
      const open = [...run.saves.values()].filter(
        (save) => save.state === "open" && save.begun.expiresAt > service.now(),
      );
      return json({ saves: open.map((save) => describeSave(run, save)) });
    },
  }),
  route({
    method: "GET",
    path: "/v1/runs/{run}/saves/{save}",
    operation: "getSave",
    tag: TAG,
    summary: "A save: its state, files, uploads, and the ranks whose manifest has not come.",
    scopes: ["read", "write"],
    query: noQuery,
    headers: CONDITIONS,
    answers: { 200: { description: "The save", schema: saveAnswer, headers: ["ETag"] } },
    async handle({ service, request, params }): Promise<Response> {
      const { run, save } = await saveOf(service, params);
      const etag = tagOf(save);
      if (isUnchanged(request, etag)) return empty(304, { etag });
      return json(describeSave(run, save), 200, { etag });
    },
  }),
  route({
    method: "POST",
    path: "/v1/runs/{run}/saves/{save}/commit",
    operation: "commitSave",
    tag: TAG,
    summary:
      "Proves the save whole and makes it a checkpoint. It may say which manifest, or which ranks' in rank order, is " +
      "meant, by SHA-256. A repeated commit answers as the first did.",
    scopes: ["commit"],
    query: noQuery,
    headers: CONDITIONS,
    body: commitBody,
    bodyOptional: true,
    answers: {
      200: { description: "The committed save", schema: saveAnswer, headers: ["ETag", "Location"] },
    },
    async handle({ service, request, params, body, mount }): Promise<Response> {
      const { run, save } = await saveOf(service, params);
      return save.queue(async () => {
        if (save.state === "committed") {
          if (!isMeant(save, body, save.manifest)) {
            throw new Problem("already-committed", "the save was committed with other manifests");
          }
        } else {
          checkWritable(request, tagOf(save));
          if (!isMeant(save, body, save.files.get(MANIFEST_FILE)?.sha256)) {
            throw new Problem("digest-mismatch", "the save's manifests are not those of this commit");
          }
          await commitAndTell(service, run, save);
        }
        return json(describeSave(run, save), 200, {
          location: `${mount}/v1/runs/${run.name}/checkpoints/${save.begun.name}`,
          etag: tagOf(save),
        });
      });
    },
  }),
  route({
    method: "POST",
    path: "/v1/runs/{run}/saves/{save}/abort",
    operation: "abortSave",
    tag: TAG,
    summary: "Drops a save and what was uploaded for it. Again: nothing.",
    scopes: ["write"],
    query: noQuery,
    headers: CONDITIONS,
    answers: { 204: { description: "Dropped" } },
    async handle({ service, request, params }): Promise<Response> {
      const { run, save } = await saveOf(service, params);
      return save.queue(async () => {
        if (save.state === "aborted") return empty();
        save.checkOpen();
        checkWritable(request, tagOf(save));
        await save.record({ type: "aborted", at: service.now() });
        await save.clear();
        run.events.publish("save-aborted", { save: save.begun.id, name: save.begun.name });
        return empty();
      });
    },
  }),
];

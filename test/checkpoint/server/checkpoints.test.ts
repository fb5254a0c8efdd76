import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { createJobs } from "../../../checkpoint/server/jobs.ts";
import { Problem, problemResponse } from "../../../checkpoint/server/problem.ts";
import { type Api, apiOf, beginSave, expectProblem } from "./api.ts";
import { uploadParts } from "./lifecycle.ts";
import { makeParts } from "./parts.ts";
import { type RunningService, SERVICES, startService } from "./service.ts";

/** Commits a checkpoint of one rank and returns its path. */
async function commit(api: Api, run: string, step: number): Promise<string> {
  const save = await beginSave(api, run, { step, worldSize: 1 });
  await uploadParts(api, save, makeParts(step, 1));
  const committed = await api("POST", `${save}/commit`);
  expect(committed.status).toBe(200);
  return committed.headers.get("location")!;
}

describe.each(SERVICES)("%s", (_, start) => {
  let service: RunningService;
  let api: Api;
  beforeAll(async () => {
    service = await start();
    api = apiOf(service.url);
  }, 30_000);
  afterAll(async () => {
    expect(service.errors).toEqual([]);
    await service.close();
  });

  test("a list comes in pages, each of which names the next, until every checkpoint came once", async () => {
    for (const step of [1, 2, 3, 4, 5]) await commit(api, "pages", step);
    const due = [1, 2, 3, 4, 5].map((step) => `step-0000000${step}`);
    for (const form of ["", "&names=only"]) {
      const names: string[] = [];
      const pages: number[] = [];
      let next: string | undefined = `/v1/runs/pages/checkpoints?limit=2${form}`;
      while (next !== undefined) {
        const { status, json, headers } = await api("GET", next);
        expect(status).toBe(200);
        const page = json.checkpoints as readonly { readonly name: string }[];
        if (form !== "") expect(page.every((one) => Object.keys(one).join() === "name")).toBe(true);
        names.push(...page.map(({ name }) => name));
        pages.push(page.length);
        next = /^<([^>]+)>; rel="next"$/.exec(headers.get("link") ?? "")?.[1];
      }
      expect([names, pages]).toEqual([due, [2, 2, 1]]);
    }
    for (const cursor of ["..", "%00", "A", "a%2fb", ""]) {
      const answer = await api("GET", `/v1/runs/pages/checkpoints?after=${cursor}`);
      expectProblem(answer, 400, "malformed");
    }
    // A cursor is a name, whether or not there is one: the list may change between two pages.
    await api("DELETE", "/v1/runs/pages/checkpoints/step-00000002");
    const { json } = await api("GET", "/v1/runs/pages/checkpoints?names=only&after=step-00000002");
    expect(json.checkpoints).toEqual(due.slice(2).map((name) => ({ name })));
  });

  test("metrics and labels are noted beside a checkpoint, each replaced by itself, under its entity tag", async () => {
    const path = await commit(api, "notes", 1);
    const before = await api("GET", path);
    expect(before.json).toMatchObject({ metrics: {}, labels: {}, exportable: true });
    const etag = before.headers.get("etag")!;
    const note = (json: unknown, headers: Record<string, string> = {}) =>
      api("PATCH", path, { json, headers });
    const first = await note({ metrics: { "eval.loss": 2.25, steps: -0.5e-7 } }, { "if-match": etag });
    expect(first.json.metrics).toEqual({ "eval.loss": 2.25, steps: -0.5e-7 });
    expectProblem(await note({ metrics: { lost: 1 } }, { "if-match": etag }), 412, "precondition");
    const second = await note({ labels: { kind: "best" } });
    expect(second.json).toMatchObject({ metrics: { "eval.loss": 2.25 }, labels: { kind: "best" } });
    expect((await note({ metrics: { loss: 1 } })).json.metrics).toEqual({ loss: 1 });
    const listed = (await api("GET", "/v1/runs/notes/checkpoints")).json.checkpoints;
    expect(listed).toEqual([(await api("GET", path)).json]);
    for (const body of [
      '{"metrics":{"loss":"1"}}',
      '{"metrics":{"loss":null}}',
      '{"metrics":{"loss":1e999}}',
      '{"metrics":{"":1}}',
      '{"metrics":{"a b":1}}',
      `{"metrics":{${Array.from({ length: 65 }, (_, i) => `"m${i}":1`)}}}`,
      '{"metrics":[1]}',
    ]) {
      const headers = { "content-type": "application/json" };
      expectProblem(await api("PATCH", path, { body, headers }), 422, "invalid");
    }
    expect((await api("GET", path)).json.metrics).toEqual({ loss: 1 });
  });

  test("a deletion may say what it means to delete, and takes nothing that is pinned", async () => {
    const path = await commit(api, "ends", 1);
    const stale = (await api("GET", path)).headers.get("etag")!;
    await api("PATCH", path, { json: { pinned: true, metrics: { loss: 1 } } });
    expectProblem(await api("DELETE", path), 409, "pinned");
    const etag = (await api("PATCH", path, { json: { pinned: false } })).headers.get("etag")!;
    for (const value of [stale, '"x"']) {
      expectProblem(await api("DELETE", path, { headers: { "if-match": value } }), 412, "precondition");
    }
    expect((await api("GET", path)).status).toBe(200);
    expect((await api("DELETE", path, { headers: { "if-match": etag } })).status).toBe(204);
    expectProblem(await api("GET", path), 404, "not-found");
    // What was noted of it says nothing of the next of its name.
    expect((await api("GET", await commit(api, "ends", 1))).json).toMatchObject({
      metrics: {},
      pinned: false,
    });
  });

  test("JSON of a checkpoint is not sent again to who has it, and is told from its other forms", async () => {
    const path = await commit(api, "tags", 1);
    const json = { accept: "application/json" };
    const tags = new Set<string>();
    for (const [url, headers] of [
      [path, {}],
      [`${path}/tensors`, {}],
      [`${path}/files`, {}],
      [`${path}/manifest`, json],
      [`${path}/manifest`, {}],
    ] as const) {
      const { headers: answered } = await api("GET", url, { headers });
      const etag = answered.get("etag")!;
      tags.add(etag);
      const again = await api("GET", url, { headers: { ...headers, "if-none-match": etag } });
      expect([url, again.status, again.bytes.length]).toEqual([url, 304, 0]);
      const other = await api("GET", url, { headers: { ...headers, "if-match": '"x"' } });
      expectProblem(other, 412, "precondition");
    }
    expect(tags.size).toBe(5);
    for (const [accept, type] of [
      ["application/json, */*;q=0.1", "application/json"],
      ["application/json;q=1", "application/json"],
      ["application/vnd.msgpack, application/json", "application/msgpack"],
      ["application/msgpack", "application/msgpack"],
      ["*/*", "application/msgpack"],
      ["text/html, application/json-patch+json", "application/msgpack"],
    ] as const) {
      const { headers } = await api("GET", `${path}/manifest`, { headers: { accept } });
      expect([accept, headers.get("content-type"), headers.get("vary")]).toEqual([accept, type, "accept"]);
    }
  });
});

test("one verification runs at a time: another is told when to come again", async () => {
  const jobs = createJobs();
  const first = Promise.withResolvers<readonly string[]>();
  const job = jobs.start("a/x", 0, () => first.promise);
  const refuse = (): Response => {
    try {
      jobs.start("a/y", 0, async () => []);
    } catch (error) {
      if (error instanceof Problem) return problemResponse(error);
    }
    throw new Error("it was started");
  };
  expect([refuse().status, refuse().headers.get("retry-after")]).toEqual([429, "1"]);
  first.resolve(["fault"]);
  await first.promise;
  await Promise.resolve();
  expect(jobs.find("a/x", job.id)).toMatchObject({ state: "done", result: ["fault"] });
  expect(jobs.find("a/y", job.id)).toBeUndefined();
  expect(jobs.start("a/y", 0, async () => []).state).toBe("running");
});

test("notes of an earlier version, which had no metrics, are read", async () => {
  const service = await startService();
  const api = apiOf(service.url);
  const path = await commit(api, "a", 1);
  const note = join(service.directory, ".service", "a", "notes", "step-00000001.json");
  await Bun.write(note, '{"revision":3,"pinned":true,"labels":{"kind":"old"}}');
  expect((await api("GET", path)).json).toMatchObject({ pinned: true, labels: { kind: "old" }, metrics: {} });
  expect(service.errors).toEqual([]);
  await service.close();
});

import { afterAll, describe, expect, test } from "bun:test";
import { Hono } from "hono";
import * as v from "valibot";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { createCheckpointApp, ROUTES } from "../../../checkpoint/server/app.ts";
import { createEvents } from "../../../checkpoint/server/events.ts";
import { listen } from "../../../checkpoint/server/listen.ts";
import { openApiDocument } from "../../../checkpoint/server/openapi.ts";
import { PROBLEMS } from "../../../checkpoint/server/problem.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import { runRanks } from "../ranks.ts";
import { dimZero, patternTensor, shardedState } from "../states.ts";
import { apiOf } from "./api.ts";
import { makeFolder } from "./service.ts";

const { folder, remove } = makeFolder();
afterAll(remove);

describe("the app", () => {
  test("works mounted below a path of an app of the user's", async () => {
    const root = new Hono();
    root.get("/", (context) => context.text("mine"));
    root.route("/deep/store", createCheckpointApp({ directory: `${folder}/mounted` }));
    const listener = await listen((request) => root.fetch(request), { hostname: "127.0.0.1", port: 0 });
    const checkpointer = nativeCheckpointer(httpStore(`${listener.url}/deep/store/runs/a`));
    const tensors = [patternTensor("model.w", "float32", [9, 4])];
    await runRanks(3, (collective) =>
      checkpointer.save(shardedState(tensors, dimZero(3), collective.rank), 1, collective),
    );
    expect((await checkpointer.list()).map(({ step }) => step)).toEqual([1]);
    const api = apiOf(listener.url);
    const latest = await api("GET", "/deep/store/v1/runs/a/checkpoints/latest");
    expect(latest.headers.get("location")).toBe("/deep/store/v1/runs/a/checkpoints/step-00000001");
    expect((await api("GET", "/deep/store/v1/openapi.json")).json.servers).toEqual([{ url: "/deep/store" }]);
    expect(new TextDecoder().decode((await api("GET", "/")).bytes)).toBe("mine");
    await listener.close();
  });

  test("tells an unexpected failure to its owner, and to clients only that there was one", async () => {
    const errors: unknown[] = [];
    const app = createCheckpointApp({
      directory: "/dev/null/no-folder",
      onError: (error) => void errors.push(error),
    });
    const response = await app.fetch(new Request("http://localhost/v1/runs"));
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain("/dev/null");
    expect(String(errors[0])).toContain("/dev/null");
  });

  test("describes every route as OpenAPI 3.1, with its schemas, scopes and problems", () => {
    const document = openApiDocument(ROUTES, "");
    const operation = v.looseObject({
      operationId: v.pipe(v.string(), v.minLength(1)),
      summary: v.pipe(v.string(), v.minLength(1)),
      parameters: v.array(
        v.looseObject({
          name: v.string(),
          in: v.picklist(["path", "query", "header"]),
          schema: v.looseObject({}),
        }),
      ),
      responses: v.looseObject({ default: v.looseObject({}) }),
      security: v.array(v.strictObject({ token: v.array(v.string()) })),
    });
    const paths = v.parse(v.record(v.string(), v.record(v.string(), operation)), document.paths);
    const listed = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(listed.sort()).toEqual(ROUTES.map(({ method, path }) => `${method} ${path}`).sort());
    const ids = Object.values(paths).flatMap((methods) =>
      Object.values(methods).map((one) => one.operationId),
    );
    expect(new Set(ids).size).toBe(ids.length);
    for (const [path, methods] of Object.entries(paths)) {
      for (const { parameters } of Object.values(methods)) {
        const named = parameters.filter((one) => one.in === "path").map(({ name }) => `{${name}}`);
        expect(named).toEqual([...path.matchAll(/\{[a-z0-9]+\}/g)].map(([name]) => name));
      }
    }
    const needed = paths["/v1/runs/{run}/saves/{save}/uploads/{upload}"]!.patch!.parameters.filter(
      (one) => one.in === "header" && one.required === true,
    );
    expect(needed.map(({ name }) => name)).toEqual(["Upload-Complete", "Upload-Offset"]);
    const text = JSON.stringify(document);
    for (const type of Object.keys(PROBLEMS)) expect(text).toContain(type);
    expect(JSON.parse(text)).toEqual(document);
  });
});

describe("events", () => {
  test("are numbered, remembered up to a bound, and replayed from where a subscriber was", () => {
    const events = createEvents();
    for (let i = 1; i <= 5000; i++) events.publish("file-stored", { i });
    const seen: number[] = [];
    const end = events.subscribe(4990, ({ id }) => void seen.push(id));
    events.publish("file-stored", {});
    end();
    events.publish("file-stored", {});
    expect(seen).toEqual(Array.from({ length: 11 }, (_, i) => 4991 + i));
    const all: number[] = [];
    events.subscribe(0, ({ id }) => void all.push(id));
    expect([all.length, all.at(-1)]).toEqual([1000, 5002]);
    // An id from before a restart.
    const ahead: number[] = [];
    events.subscribe(1_000_000, ({ id }) => void ahead.push(id));
    expect(ahead.length).toBe(1000);
  });
});

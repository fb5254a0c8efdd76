import { afterAll, describe, expect, test } from "bun:test";
import { createCheckpointApp, ROUTES } from "../../../checkpoint/server/app.ts";
import type { Route } from "../../../checkpoint/server/routes/route.ts";
import { type Answer, type Api, append, beginSave, beginUpload, putFile, sha256, someBytes } from "./api.ts";
import { uploadParts } from "./lifecycle.ts";
import { makeParts } from "./parts.ts";
import { makeFolder } from "./service.ts";

const { folder, remove } = makeFolder();
afterAll(remove);

/** Fields that every request or answer may have, whatever it is about. */
const COMMON: ReadonlySet<string> = new Set([
  ...["accept", "authorization", "content-length", "content-type", "host", "origin", "sec-fetch-site"],
  ...["cache-control", "vary", "allow", "x-accel-buffering"],
]);

/** What was read of requests, and what answers of each status had, by operation. */
interface Seen {
  readonly read: Set<string>;
  readonly answered: Map<number, Set<string>>;
}

/** Requests to an app in this process, each noted under the route that it is for. */
function recorded(): { readonly api: Api; readonly seen: ReadonlyMap<string, Seen> } {
  const app = createCheckpointApp({ directory: folder });
  const seen = new Map<string, Seen>();
  const api: Api = async (method, path, ask = {}): Promise<Answer> => {
    const { json } = ask;
    const request = new Request(`http://localhost${path}`, {
      method,
      headers: { ...(json === undefined ? {} : { "content-type": "application/json" }), ...ask.headers },
      body: json === undefined ? (ask.body ?? null) : JSON.stringify(json),
    });
    const own = seenOf(seen, routeOf(method, path));
    const { headers } = request;
    const noting = {
      get: (name: string) => note(own.read, name, headers.get(name)),
      has: (name: string) => note(own.read, name, headers.has(name)),
      [Symbol.iterator]: () => headers[Symbol.iterator](),
    };
    Object.defineProperty(request, "headers", { value: noting });
    const response = await app.fetch(request);
    const fields = own.answered.get(response.status) ?? new Set();
    own.answered.set(response.status, fields);
    for (const name of response.headers.keys()) if (!COMMON.has(name)) fields.add(name);
    const type = response.headers.get("content-type") ?? "";
    // Events never end by themselves.
    const endless = type === "text/event-stream";
    if (endless) await response.body?.cancel();
    const bytes = new Uint8Array(endless ? new ArrayBuffer(0) : await response.arrayBuffer());
    const value = type === "application/json" ? JSON.parse(new TextDecoder().decode(bytes)) : {};
    return { status: response.status, headers: response.headers, bytes, json: value };
  };
  return { api, seen };
}

function note<T>(read: Set<string>, name: string, value: T): T {
  if (!COMMON.has(name.toLowerCase())) read.add(name.toLowerCase());
  return value;
}

function seenOf(seen: Map<string, Seen>, { operation }: Route): Seen {
  const known = seen.get(operation) ?? { read: new Set(), answered: new Map() };
  seen.set(operation, known);
  return known;
}

function routeOf(method: string, path: string): Route {
  const { pathname } = new URL(path, "http://localhost");
  return ROUTES.find((route) => {
    const pattern = route.path.replaceAll(".", "\\.").replaceAll(/\{[a-z0-9]+\}/g, "[^/]+");
    return route.method === (method === "HEAD" ? "GET" : method) && new RegExp(`^${pattern}$`).test(pathname);
  })!;
}

/** Uses every route as it is meant to be used. */
async function useAll(api: Api): Promise<void> {
  await api("GET", "/healthz");
  await api("GET", "/v1/openapi.json");
  const parts = makeParts(1, 2);
  const save = await beginSave(api, "a", { step: 1, worldSize: 2 });
  await api("GET", `${save}`);
  await api("GET", "/v1/runs/a/saves");
  await api("OPTIONS", `${save}/uploads`);
  const upload = await beginUpload(api, save, "x", { "upload-length": "100" });
  await append(api, upload, 0, someBytes(50), false);
  await api("HEAD", upload);
  await append(api, upload, 50, someBytes(50), true);
  await api("DELETE", await beginUpload(api, save, "y"));
  const range = { headers: { range: "bytes=1-3" } };
  for (const ask of [{}, range]) await api("GET", `${save}/files/x`, ask);
  await api("DELETE", `${save}/files/x`);
  const blob = `/v1/runs/a/blobs/${sha256(someBytes(9))}`;
  const octets = { body: someBytes(9), headers: { "content-type": "application/octet-stream" } };
  for (const status of [201, 200]) expect((await api("PUT", blob, octets)).status).toBe(status);
  for (const ask of [{}, range]) await api("GET", blob, ask);
  await api("POST", `${save}/files`, { json: { file: "z", sha256: sha256(someBytes(9)) } });
  await api("DELETE", `${save}/files/z`);
  await uploadParts(api, save, parts);
  const again = { body: parts[0]!.manifest, headers: { "content-type": "application/msgpack" } };
  await api("PUT", `${save}/ranks/0/manifest`, again);
  await api("POST", `${save}/commit`);
  const other = await beginSave(api, "a", { step: 2, worldSize: 1 });
  await putFile(api, other, "x", someBytes(3));
  await api("POST", `${other}/abort`);
  const last = await beginSave(api, "a", { step: 3, worldSize: 1 });
  await uploadParts(api, last, makeParts(3, 1));
  await api("POST", `${last}/commit`);
  await api("GET", "/v1/runs");
  await api("GET", "/v1/runs/a/events");
  await api("GET", "/v1/runs/a/checkpoints?limit=1");
  await api("GET", "/v1/runs/a/checkpoints/latest");
  const path = "/v1/runs/a/checkpoints/step-00000001";
  await api("PATCH", path, { json: { labels: { kind: "x" } } });
  for (const below of ["", "/files", "/tensors"]) await api("GET", `${path}${below}`);
  for (const below of [
    "/manifest",
    `/files/${parts[0]!.file}`,
    "/tensors/model.w",
    "/export.safetensors",
    "/export/model.safetensors",
  ]) {
    for (const ask of [{}, range]) await api("GET", `${path}${below}`, ask);
  }
  await api("POST", `${path}/plan`, { json: { tensors: [{ name: "model.w" }] } });
  await api("GET", (await api("POST", `${path}/verify`)).headers.get("location")!);
  await api("DELETE", path);
}

describe("headers of requests and answers", () => {
  test("are those that a route declares, each of them used, and no others", async () => {
    const { api, seen } = recorded();
    await useAll(api);
    expect([...seen.keys()].sort()).toEqual(ROUTES.map(({ operation }) => operation).sort());
    const lower = (names: readonly string[] = []) => names.map((name) => name.toLowerCase()).sort();
    for (const { operation, headers, answers } of ROUTES) {
      const { read, answered } = seen.get(operation)!;
      expect({ operation, read: [...read].sort() }).toEqual({ operation, read: lower(headers) });
      const due = Object.entries(answers).map(([status, { headers: fields }]) => [status, lower(fields)]);
      const came = [...answered].map(([status, fields]) => [String(status), [...fields].sort()]);
      expect({ operation, answers: Object.fromEntries(came) }).toEqual({
        operation,
        answers: Object.fromEntries(due),
      });
    }
  });
});

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import {
  type Answer,
  type Api,
  apiOf,
  append,
  beginSave,
  beginUpload,
  digestOf,
  expectProblem,
  putFile,
  sha256,
  someBytes,
} from "./api.ts";
import { type RunningService, SERVICES } from "./service.ts";

/** Names that must never become a run, a checkpoint or a file, as they stand in a URL. */
const HOSTILE: readonly string[] = [
  "__proto__",
  "constructor%00",
  "..%2f",
  "..%2F..%2Fetc%2Fpasswd",
  "..%5c..%5cwindows",
  "%2e%2e",
  "%2e%2e%2f",
  "%252e%252e%252f",
  "..%252f",
  "%c0%ae%c0%ae%c0%af",
  "..;a",
  "a%2fb",
  "a%5cb",
  "%2fetc%2fpasswd",
  "C%3a",
  "c%3a%5cx",
  "%5c%5cserver%5cshare",
  "a%00",
  "a%0a",
  "a%0d%0aset-cookie%3a%20x",
  "a%20",
  "%20a",
  ".hidden",
  ".service",
  ".tmp-a",
  ".trash-a",
  "a.",
  "a..b",
  "-rf",
  "_a",
  "A",
  "STEP-1",
  "%C3%A9",
  "e%CC%81",
  "%E2%80%AEa",
  "%EF%BC%8E%EF%BC%8E",
  "%F0%9F%92%A5",
  "a%7f",
  "%ff",
  "a%",
  "*",
  "%7Eroot",
  "$(id)",
  "%24%7Bx%7D",
  "a%22b",
  "a%3Cscript%3E",
  "x".repeat(129),
];

describe.each(SERVICES)("%s", (_, start) => {
  let service: RunningService;
  let api: Api;
  beforeAll(async () => {
    service = await start();
    api = apiOf(service.url);
  });
  afterAll(async () => {
    expect(service.errors).toEqual([]);
    await service.close();
  });

  /** Sends bytes as they are: `fetch` would tidy the path first. */
  function raw(text: string): Promise<string> {
    const { hostname, port } = new URL(service.url);
    return new Promise((resolve, reject) => {
      let answer = "";
      const socket: Socket = connect(Number(port), hostname, () => socket.write(text));
      socket.setTimeout(3000, () => socket.destroy());
      socket.on("data", (data) => {
        answer += String(data);
        if (answer.includes("\r\n\r\n")) socket.destroy();
      });
      socket.on("close", () => resolve(answer));
      socket.on("error", reject);
    });
  }

  describe("names", () => {
    test("hostile ones are refused in every place of a URL, and nothing is made of them", async () => {
      const save = await beginSave(api, "good", { name: "a" });
      const places = [
        (name: string) => ["POST", `/v1/runs/${name}/saves`],
        (name: string) => ["GET", `/v1/runs/${name}/checkpoints`],
        (name: string) => ["GET", `/v1/runs/good/checkpoints/${name}`],
        (name: string) => ["DELETE", `/v1/runs/good/checkpoints/${name}`],
        (name: string) => ["GET", `/v1/runs/good/checkpoints/a/files/${name}`],
        (name: string) => ["GET", `${save}/files/${name}`],
        (name: string) => ["POST", `${save}/uploads?file=${name}`],
        (name: string) => ["PUT", `/v1/runs/good/blobs/${name}`],
        (name: string) => ["PUT", `${save}/ranks/${name}/manifest`],
        (name: string) => ["GET", `/v1/runs/good/saves/${name}`],
      ] as const;
      for (const name of HOSTILE) {
        for (const place of places) {
          const [method, path] = place(name) as [string, string];
          const answer = await raw(
            `${method} ${path} HTTP/1.1\r\nhost: ${new URL(service.url).host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`,
          );
          expect(`${method} ${path}: ${answer.split("\r\n")[0]}`).toMatch(/HTTP\/1\.1 (400|403|404|405|415)/);
          expect(answer).not.toMatch(/^set-cookie/im);
        }
      }
      expect(readdirSync(service.directory).sort()).toEqual([".service"]);
      expect(readdirSync(join(service.directory, ".service"))).toEqual(["good"]);
    }, 30_000);

    test("hostile ones are refused in bodies too", async () => {
      const save = await beginSave(api, "good", { name: "b" });
      for (const name of HOSTILE.map((text) => text.replaceAll("%2f", "/").replaceAll("%00", "\0"))) {
        if (/^[a-z0-9][a-z0-9._-]{0,127}$/.test(name) && !name.includes("..") && !name.endsWith("."))
          continue;
        expectProblem(await api("POST", "/v1/runs/good/saves", { json: { name } }), 422, "invalid");
        const link = { file: name, sha256: "0".repeat(64) };
        expectProblem(await api("POST", `${save}/files`, { json: link }), 422, "invalid");
      }
      expect(existsSync("/tmp/.service")).toBe(false);
    });

    test("words of the language are names like any other where the rule allows them", async () => {
      for (const name of ["constructor", "tostring", "valueof", "hasownproperty", "con", "latest-1"]) {
        const save = await beginSave(api, name, { name });
        await putFile(api, save, name, someBytes(10));
        expect((await api("GET", `${save}/files/${name}`)).bytes).toEqual(someBytes(10));
        expectProblem(await api("GET", `/v1/runs/${name}/checkpoints/${name}`), 404, "not-found");
      }
      expectProblem(await api("POST", "/v1/runs/good/saves", { json: { name: "latest" } }), 422, "invalid");
    });
  });

  describe("requests", () => {
    test("what does not fit a schema is refused by field, without an echo of what was given", async () => {
      const bodies: unknown[] = [
        {},
        [],
        null,
        7,
        { step: -1 },
        { step: 1.5 },
        { step: 2 ** 53 },
        { step: "1" },
        { step: 1, worldSize: 0 },
        { step: 1, worldSize: 10_000_000 },
        { step: 1, commit: "auto" },
        { step: 1, labels: { "bad key": "x" } },
        { step: 1, labels: { a: "my-secret".repeat(100) } },
        { step: 1, extra: "my-secret" },
        { name: "my-secret/" },
      ];
      for (const json of bodies) {
        const answer = await api("POST", "/v1/runs/good/saves", { json });
        expectProblem(answer, 422, "invalid");
        expect(new TextDecoder().decode(answer.bytes)).not.toContain("my-secret");
      }
    });

    test("what is no JSON, no UTF-8 or of another media type is refused", async () => {
      const post = (body: string | Uint8Array<ArrayBuffer>, type: string) =>
        api("POST", "/v1/runs/good/saves", { body, headers: { "content-type": type } });
      for (const body of ["", "{", '{"step":1}}', "undefined", "[".repeat(100_000)]) {
        expectProblem(await post(body, "application/json"), 400, "malformed");
      }
      expectProblem(await post(Uint8Array.of(0x22, 0xff, 0x22), "application/json"), 400, "malformed");
      for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"]) {
        expectProblem(await post('{"step":1}', type), 415, "media-type");
      }
      const save = await beginSave(api, "types", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      const typed = await append(api, upload, 0, someBytes(1), true, {
        "content-type": "application/octet-stream",
      });
      expectProblem(typed, 415, "media-type");
    });

    test("keys such as __proto__ in bodies change nothing", async () => {
      const body = '{"step":1,"__proto__":{"admin":true}}';
      const answer = await api("POST", "/v1/runs/proto/saves", {
        body,
        headers: { "content-type": "application/json" },
      });
      expect([201, 422]).toContain(answer.status);
      expect(({} as { admin?: boolean }).admin).toBeUndefined();
    });

    test("headers that count are integers, given once", async () => {
      const save = await beginSave(api, "headers", { name: "a" });
      for (const length of ["-1", "1.5", "1e3", "9007199254740993", "0x10", "1, 2", "", " ", "NaN"]) {
        const answer = await api("POST", `${save}/uploads?file=x`, { headers: { "upload-length": length } });
        expect([length, answer.status]).toEqual([length, 400]);
      }
      const upload = await beginUpload(api, save, "x");
      for (const headers of [
        { "upload-offset": "a" },
        { "upload-complete": "1" },
        { "upload-complete": "?2" },
      ]) {
        expectProblem(await append(api, upload, 0, someBytes(1), true, headers), 400, "malformed");
      }
      for (const digest of ["sha-256=abc", "sha-256=:abc=:", "md5=:AAAA:", "x"]) {
        const bad = await append(api, upload, 0, someBytes(1), true, { "content-digest": digest });
        expectProblem(bad, 400, "malformed");
      }
      const missing = await api("PATCH", upload, {
        headers: { "content-type": "application/partial-upload" },
      });
      expectProblem(missing, 400, "malformed");
    });

    test("unknown paths, methods and queries are told apart", async () => {
      expectProblem(await api("GET", "/nothing"), 404, "not-found");
      expectProblem(await api("GET", "/v1/nothing"), 404, "not-found");
      const method = await api("PUT", "/v1/runs/good/checkpoints");
      expectProblem(method, 405, "method-not-allowed");
      expect(method.headers.get("allow")).toBe("GET, HEAD");
      for (const query of ["?x=1", "?limit=0", "?limit=1001", "?limit=a", "?limit=1&limit=2", "?after=.."]) {
        expectProblem(await api("GET", `/v1/runs/good/checkpoints${query}`), 400, "malformed");
      }
    });

    test("what is not there is not found, for every kind of thing", async () => {
      const id = crypto.randomUUID();
      const save = await beginSave(api, "absent", { name: "a" });
      const paths = [
        "/v1/runs/nowhere/checkpoints/latest",
        "/v1/runs/nowhere/saves",
        "/v1/runs/nowhere/events",
        `/v1/runs/absent/saves/${id}`,
        `${save}/uploads/${id}`,
        `${save}/files/x`,
        `/v1/runs/absent/blobs/${"0".repeat(64)}`,
        "/v1/runs/absent/checkpoints/a",
        "/v1/runs/absent/checkpoints/a/manifest",
        "/v1/runs/absent/checkpoints/a/files",
        "/v1/runs/absent/checkpoints/a/files/x",
        "/v1/runs/absent/checkpoints/a/tensors",
        "/v1/runs/absent/checkpoints/a/tensors/w",
        "/v1/runs/absent/checkpoints/a/export.safetensors",
        "/v1/runs/absent/checkpoints/a/export/model.safetensors.index.json",
        `/v1/runs/absent/checkpoints/a/verify/${id}`,
      ];
      for (const path of paths) expectProblem(await api("GET", path), 404, "not-found");
      expect((await api("GET", "/v1/runs/nowhere/checkpoints")).json).toEqual({ checkpoints: [] });
      expect(existsSync(join(service.directory, ".service", "nowhere"))).toBe(false);
    });

    test("both a length and chunks, or two lengths, are refused on the wire", async () => {
      const { host } = new URL(service.url);
      const start = `POST /v1/runs/good/saves HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\n`;
      const both = await raw(`${start}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`);
      expect(both).not.toMatch(/^HTTP\/1\.1 2/);
      const twice = await raw(`${start}content-length: 10\r\ncontent-length: 11\r\n\r\n{"step":1} `);
      expect(twice).not.toMatch(/^HTTP\/1\.1 2/);
    });
  });

  describe("uploads", () => {
    test("bytes that do not match their digest are dropped: of an append to its begin, of a file altogether", async () => {
      const bytes = someBytes(5000);
      const save = await beginSave(api, "digests", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      expect((await append(api, upload, 0, bytes.slice(0, 1000), false)).status).toBe(204);
      const rest = bytes.slice(1000);
      const bad = await append(api, upload, 1000, rest, true, { "content-digest": digestOf(bytes) });
      expectProblem(bad, 400, "content-digest");
      expect((await api("HEAD", upload)).headers.get("upload-offset")).toBe("1000");
      const good = await append(api, upload, 1000, rest, true, {
        "content-digest": digestOf(rest),
        "repr-digest": digestOf(bytes),
      });
      expect(good.status).toBe(201);
      const other = await beginUpload(api, save, "y", { "repr-digest": digestOf(rest) });
      expectProblem(await append(api, other, 0, bytes, true), 422, "digest-mismatch");
      expectProblem(await api("GET", `${save}/files/y`), 404, "not-found");
      expectProblem(await api("HEAD", other).then(() => api("GET", other)), 404, "not-found");
    });

    test("an upload that ends short of its length, or brings more, is refused and may go on", async () => {
      const save = await beginSave(api, "lengths", { name: "a" });
      const upload = await beginUpload(api, save, "x", { "upload-length": "100" });
      const short = await append(api, upload, 0, someBytes(60), true);
      expectProblem(short, 422, "length-mismatch");
      expect(short.json.expectedOffset).toBe(60);
      expectProblem(await append(api, upload, 60, someBytes(41), true), 413, "too-large");
      expect((await append(api, upload, 60, someBytes(40), true)).status).toBe(201);
    });

    test("a file's name is taken from its upload on, and free again when that is dropped", async () => {
      const save = await beginSave(api, "taken", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      expectProblem(await api("POST", `${save}/uploads?file=x`), 409, "already-exists");
      expect((await api("DELETE", upload)).status).toBe(204);
      await putFile(api, save, "x", someBytes(3));
      expectProblem(await api("POST", `${save}/uploads?file=x`), 409, "already-exists");
      expect((await api("DELETE", `${save}/files/x`)).status).toBe(204);
      await putFile(api, save, "x", someBytes(4));
    });

    test("repeated requests with one idempotency key do one thing; the key of another thing is refused", async () => {
      const headers = { "idempotency-key": "k1" };
      const begin = (json: unknown) => api("POST", "/v1/runs/keys/saves", { json, headers });
      const first = await begin({ step: 1 });
      const second = await begin({ step: 1 });
      expect([second.status, second.json.id]).toEqual([201, first.json.id]);
      expectProblem(await begin({ step: 2 }), 409, "key-reused");
      expectProblem(await begin({ step: 1, labels: { kind: "other" } }), 409, "key-reused");
      expectProblem(await begin({ step: 1, expiresIn: 60 }), 409, "key-reused");
      const save = first.headers.get("location")!;
      const one = await api("POST", `${save}/uploads?file=x`, { headers });
      const two = await api("POST", `${save}/uploads?file=x`, { headers });
      expect(two.headers.get("location")).toBe(one.headers.get("location"));
      expectProblem(await api("POST", `${save}/uploads?file=y`, { headers }), 409, "key-reused");
    });

    test("a repeated create never begins a second upload, whatever became of the first", async () => {
      const save = await beginSave(api, "again", { name: "a" });
      const create = (key: string, file = "x") =>
        api("POST", `${save}/uploads?file=${file}`, { headers: { "idempotency-key": key } });
      const standing = ({ status, headers }: Answer) => ({
        status,
        at: headers.get("location"),
        offset: headers.get("upload-offset"),
        complete: headers.get("upload-complete"),
      });
      const first = await create("one");
      const at = first.headers.get("location")!;
      expect(standing(first)).toEqual({ status: 201, at, offset: "0", complete: "?0" });
      await append(api, at, 0, someBytes(600), false);
      expect(standing(await create("one"))).toEqual({ status: 201, at, offset: "600", complete: "?0" });
      await append(api, at, 600, someBytes(400), true);
      const finished = { status: 201, at, offset: "1000", complete: "?1" };
      expect(standing(await create("one"))).toEqual(finished);
      expectProblem(await create("one", "y"), 409, "key-reused");
      expect((await api("DELETE", `${save}/files/x`)).status).toBe(204);
      expect(standing(await create("one"))).toEqual(finished);
      expect((await api("GET", save)).json).toMatchObject({ files: [], uploads: [] });
      // The name is free for an upload of another key; one that was dropped is not begun again by its own.
      const second = await create("two");
      expect(second.headers.get("location")).not.toBe(at);
      expect((await api("DELETE", second.headers.get("location")!)).status).toBe(204);
      expectProblem(await create("two"), 409, "not-open");
      expect((await api("GET", save)).json.uploads).toEqual([]);
    });

    test("a service tells beforehand how large uploads may be", async () => {
      const begun = await api("POST", "/v1/runs/told/saves", { json: { name: "a" } });
      const limit = begun.headers.get("upload-limit");
      expect(limit).toBe(`max-size=${64 * 2 ** 30}, max-append-size=${2 ** 30}`);
      const uploads = `${begun.headers.get("location")}/uploads`;
      const options = await api("OPTIONS", uploads);
      expect([options.status, options.headers.get("upload-limit")]).toEqual([204, limit]);
      expect((await api("POST", `${uploads}?file=x`)).headers.get("upload-limit")).toBe(limit);
      const absent = begun.headers.get("location")!.replace(/[^/]+$/, crypto.randomUUID());
      expectProblem(await api("OPTIONS", `${absent}/uploads`), 404, "not-found");
    });

    test("a blob is stored once, found by its digest alone, and refused under another's", async () => {
      const bytes = someBytes(100_000, 7);
      const path = `/v1/runs/blobs/blobs/${sha256(bytes)}`;
      const put = (target: string) =>
        api("PUT", target, { body: bytes, headers: { "content-type": "application/octet-stream" } });
      expect([(await put(path)).status, (await put(path)).status]).toEqual([201, 200]);
      const head = await api("HEAD", path);
      expect([head.status, head.headers.get("content-length")]).toEqual([200, "100000"]);
      expectProblem(await put(`/v1/runs/blobs/blobs/${"0".repeat(64)}`), 422, "digest-mismatch");
      expect((await api("HEAD", `/v1/runs/blobs/blobs/${"0".repeat(64)}`)).status).toBe(404);
      // Another run does not see it.
      await beginSave(api, "elsewhere", { name: "a" });
      expect((await api("HEAD", `/v1/runs/elsewhere/blobs/${sha256(bytes)}`)).status).toBe(404);
      const save = await beginSave(api, "blobs", { name: "a" });
      const linked = await api("POST", `${save}/files`, { json: { file: "x", sha256: sha256(bytes) } });
      expect([linked.status, linked.json.length]).toEqual([201, 100_000]);
      const unknown = await api("POST", `${save}/files`, { json: { file: "y", sha256: "0".repeat(64) } });
      expectProblem(unknown, 422, "blob-unknown");
    });

    test("a new request on an upload ends the one before it, and what that one brought stays", async () => {
      const bytes = someBytes(200_000, 3);
      const save = await beginSave(api, "takeover", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      const { hostname, port, host } = new URL(service.url);
      const socket = connect(Number(port), hostname);
      const head = `PATCH ${upload} HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/partial-upload\r\n`;
      socket.write(
        `${head}upload-offset: 0\r\nupload-complete: ?1\r\ncontent-length: ${bytes.length}\r\n\r\n`,
      );
      socket.write(bytes.subarray(0, 100_000));
      let offset = 0;
      // What is on its way may come in before the question, or be dropped by it.
      await Bun.sleep(50);
      offset = Number((await api("HEAD", upload)).headers.get("upload-offset"));
      expect(offset).toBeGreaterThanOrEqual(0);
      expect((await append(api, upload, offset, bytes.slice(offset), true)).status).toBe(201);
      socket.destroy();
      expect((await api("GET", `${save}/files/x`)).bytes).toEqual(bytes);
    });
  });
});

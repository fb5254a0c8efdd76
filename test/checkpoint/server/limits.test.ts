import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { CheckpointAppOptions } from "../../../checkpoint/server/service.ts";
import {
  type Api,
  apiOf,
  append,
  beginSave,
  beginUpload,
  expectProblem,
  putFile,
  sha256,
  someBytes,
} from "./api.ts";
import { uploadParts } from "./lifecycle.ts";
import { makeParts } from "./parts.ts";
import { type RunningService, startService } from "./service.ts";

const open: RunningService[] = [];
afterEach(async () => {
  for (const service of open.splice(0)) {
    expect(service.errors).toEqual([]);
    await service.close();
  }
});

async function serve(
  options: Partial<CheckpointAppOptions>,
): Promise<{ readonly service: RunningService; readonly api: Api }> {
  const service = await startService(options);
  open.push(service);
  return { service, api: apiOf(service.url) };
}

describe("limits", () => {
  test("sizes: of bodies with and without a length, of files, headers and URLs", async () => {
    const { api, service } = await serve({
      limits: { appendBytes: 1000, fileBytes: 1500, jsonBytes: 100, manifestBytes: 100, headerBytes: 4096 },
    });
    const save = await beginSave(api, "a", { name: "a" });
    const upload = await beginUpload(api, save, "x");
    const over = await append(api, upload, 0, someBytes(1001), false);
    expectProblem(over, 413, "too-large");
    expect(over.json.limit).toBe(1000);
    const chunked = await fetch(`${service.url}${upload}`, {
      method: "PATCH",
      headers: {
        "content-type": "application/partial-upload",
        "upload-offset": "0",
        "upload-complete": "?0",
      },
      body: new ReadableStream({
        async pull(controller): Promise<void> {
          controller.enqueue(someBytes(600));
          controller.enqueue(someBytes(600));
          controller.close();
        },
      }),
    });
    expect(chunked.status).toBe(413);
    const at = Number((await api("HEAD", upload)).headers.get("upload-offset"));
    expect(at).toBeLessThanOrEqual(1000);
    expect((await append(api, upload, at, someBytes(1000 - at), false)).status).toBe(204);
    expectProblem(await append(api, upload, 1000, someBytes(501), true), 413, "too-large");
    const long = await api("POST", `${save}/uploads?file=y`, { headers: { "upload-length": "1501" } });
    expectProblem(long, 413, "too-large");
    const blob = { body: someBytes(1001), headers: { "content-type": "application/octet-stream" } };
    expectProblem(await api("PUT", `/v1/runs/a/blobs/${sha256(someBytes(1001))}`, blob), 413, "too-large");
    const labels = { a: "x".repeat(100) };
    expectProblem(await api("POST", "/v1/runs/a/saves", { json: { name: "b", labels } }), 413, "too-large");
    const manifest = { body: someBytes(101), headers: { "content-type": "application/msgpack" } };
    expectProblem(await api("PUT", `${save}/ranks/0/manifest`, manifest), 413, "too-large");
    expectProblem(
      await api("GET", "/v1/runs", { headers: { x: "y".repeat(5000) } }),
      431,
      "headers-too-large",
    );
    expectProblem(await api("GET", `/v1/runs/${"a".repeat(5000)}`), 414, "uri-too-long");
  });

  test("numbers: of saves, files, event streams and requests at once", async () => {
    const { api, service } = await serve({
      limits: { savesPerRun: 2, filesPerSave: 2, eventStreams: 1, requests: 2 },
    });
    const save = await beginSave(api, "a", { name: "a" });
    await beginSave(api, "a", { name: "b" });
    const third = await api("POST", "/v1/runs/a/saves", { json: { name: "c" } });
    expectProblem(third, 429, "limit");
    expect(Number(third.headers.get("retry-after"))).toBeGreaterThan(0);
    await putFile(api, save, "x", someBytes(1));
    const upload = await beginUpload(api, save, "y");
    expectProblem(await api("POST", `${save}/uploads?file=z`), 429, "limit");
    await api("DELETE", upload);
    // Two files may be begun twenty times in all.
    for (let begun = 2; begun < 20; begun++) await api("DELETE", await beginUpload(api, save, "y"));
    expectProblem(await api("POST", `${save}/uploads?file=z`), 429, "limit");
    const abort = new AbortController();
    const stream = await fetch(`${service.url}/v1/runs/a/events`, { signal: abort.signal });
    expect(stream.status).toBe(200);
    expectProblem(await api("GET", "/v1/runs/a/events"), 429, "limit");
    abort.abort();
    for (let i = 0; i < 100; i++) {
      if ((await fetch(`${service.url}/v1/runs/a/events`, { method: "HEAD" })).status === 200) break;
      await Bun.sleep(10);
    }
    const answers = await Promise.all(Array.from({ length: 40 }, () => api("GET", `${save}/files/x`)));
    const refused = answers.filter(({ status }) => status !== 200);
    for (const answer of refused) expectProblem(answer, 503, "busy");
  });

  test("numbers: of large answers at once, and of runs", async () => {
    const { api, service } = await serve({ limits: { transfers: 1, runs: 1 } });
    const folder = join(service.directory, "a", "step-00000001");
    await Bun.write(join(folder, "manifest.msgpack"), "x");
    await Bun.write(join(folder, "big.bin"), new Uint8Array(64 * 1024 * 1024));
    const url = `${service.url}/v1/runs/a/checkpoints/step-00000001/files/big.bin`;
    const first = await fetch(url);
    expectProblem(await api("GET", url), 503, "busy");
    expect((await api("GET", url, { headers: { range: "bytes=0-99" } })).status).toBe(206);
    await first.body!.cancel();
    let status = 0;
    for (let i = 0; i < 200 && status !== 200; i++) {
      await Bun.sleep(10);
      const again = await fetch(url);
      status = again.status;
      await again.body!.cancel();
    }
    expect(status).toBe(200);
    await beginSave(api, "a", { name: "x" });
    expectProblem(await api("POST", "/v1/runs/b/saves", { json: { name: "x" } }), 429, "limit");
  });

  test("rate: a burst is answered, what comes above the rate is told when to come again", async () => {
    let now = 0;
    const { api } = await serve({ now: () => now, limits: { requestsPerSecond: 10, requestBurst: 5 } });
    const ask = async (): Promise<number> => (await api("GET", "/healthz")).status;
    for (let i = 0; i < 5; i++) expect(await ask()).toBe(200);
    const refused = await api("GET", "/healthz");
    expectProblem(refused, 429, "limit");
    expect(refused.headers.get("retry-after")).toBe("1");
    now += 100;
    expect([await ask(), await ask()]).toEqual([200, 429]);
  });

  test("room: what is announced is set aside, and a full disk is told before it is full", async () => {
    let free = 10_000;
    const { api } = await serve({ freeBytes: async () => free, limits: { keepFreeBytes: 1000 } });
    const save = await beginSave(api, "a", { name: "a" });
    const first = await beginUpload(api, save, "x", { "upload-length": "6000" });
    const second = await api("POST", `${save}/uploads?file=y`, { headers: { "upload-length": "3001" } });
    expectProblem(second, 507, "storage");
    expect(second.json).toMatchObject({ needed: 3001, free: 3000 });
    expectProblem(
      await api("POST", "/v1/runs/a/saves", { json: { name: "b", bytes: 3001 } }),
      507,
      "storage",
    );
    await beginUpload(api, save, "y", { "upload-length": "3000" });
    await api("DELETE", first);
    await beginUpload(api, save, "z", { "upload-length": "6000" });
    const unknown = await beginUpload(api, save, "u");
    expectProblem(await append(api, unknown, 0, someBytes(1), false), 507, "storage");
    free += 1;
    expect((await append(api, unknown, 0, someBytes(1), false)).status).toBe(204);
  });

  test("silence: an upload that sends nothing is ended, and what it sent stays", async () => {
    const { api, service } = await serve({ limits: { idleSeconds: 0.05 } });
    const save = await beginSave(api, "a", { name: "a" });
    const upload = await beginUpload(api, save, "x");
    const answer = await fetch(`${service.url}${upload}`, {
      method: "PATCH",
      headers: {
        "content-type": "application/partial-upload",
        "upload-offset": "0",
        "upload-complete": "?1",
      },
      body: new ReadableStream({
        async start(controller): Promise<void> {
          controller.enqueue(someBytes(1000));
          await Bun.sleep(400);
          controller.close();
        },
      }),
    }).catch(() => undefined);
    expect(answer?.status ?? 408).toBe(408);
    expect((await api("HEAD", upload)).headers.get("upload-offset")).toBe("1000");
  });
});

describe("expiry", () => {
  test("abandoned saves end, their bytes are freed after a grace period, and committed ones never", async () => {
    let now = Date.now();
    const { api, service } = await serve({
      now: () => now,
      limits: { saveSeconds: 1000, graceSeconds: 500 },
    });
    const kept = await beginSave(api, "a", { step: 1, worldSize: 1 });
    await uploadParts(api, kept, makeParts(1, 1));
    await api("POST", `${kept}/commit`);
    const save = await beginSave(api, "a", { name: "gone", expiresIn: 100 });
    const upload = await beginUpload(api, save, "half");
    await append(api, upload, 0, someBytes(5000), false);
    await putFile(api, save, "whole", someBytes(6000));
    const blobs = (): readonly string[] =>
      readdirSync(join(service.directory, ".service", "a", "blobs")).filter(
        (name) => !name.endsWith(".json"),
      );
    expect(blobs()).toContain(sha256(someBytes(6000)));

    now += 101_000;
    expectProblem(await api("HEAD", upload).then(() => api("GET", upload)), 410, "expired");
    expectProblem(await api("POST", `${save}/commit`), 410, "expired");
    const folder = join(service.directory, ".service", "a", "saves", save.split("/").at(-1)!);
    expect(readdirSync(folder)).toEqual(["journal.jsonl"]);
    expect(blobs()).toContain(sha256(someBytes(6000)));

    now += 500_000;
    await api("GET", "/healthz");
    expect(blobs()).not.toContain(sha256(someBytes(6000)));
    const [part] = makeParts(1, 1);
    expect(blobs()).toContain(sha256(part!.data));
    expect((await api("GET", `/v1/runs/a/blobs/${sha256(part!.data)}`)).bytes).toEqual(part!.data);

    now += 1_000_000;
    await api("GET", "/healthz");
    expect(existsSync(folder)).toBe(false);
    await api("DELETE", "/v1/runs/a/checkpoints/step-00000001");
    now += 600_000;
    await api("GET", "/healthz");
    expect(blobs()).toEqual([]);
  });
});

/**
 * The life of checkpoints at a service, request by request. Run against a service in this process and against `serve` in
 * processes of Bun and of Deno.
 *
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { parseHeader, parseHeaderLength } from "../../../checkpoint/formats/safetensors/header.ts";
import {
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
import { makeParts, type Part, wholeTensor } from "./parts.ts";
import type { RunningService } from "./service.ts";

const MSGPACK = { "content-type": "application/msgpack" };

/** Uploads what ranks have, and their manifests. */
export async function uploadParts(api: Api, save: string, parts: readonly Part[]): Promise<void> {
  for (const { rank, file, data, manifest } of parts) {
    await putFile(api, save, file, data);
    const answer = await api("PUT", `${save}/ranks/${rank}/manifest`, { body: manifest, headers: MSGPACK });
    expect(answer.status).toBe(201);
  }
}

/** Registers the suite. */
export function serviceLifecycle(name: string, start: () => Promise<RunningService>): void {
  describe(`${name}: checkpoint service`, () => {
    let service: RunningService;
    let api: Api;
    beforeAll(async () => {
      service = await start();
      api = apiOf(service.url);
    }, 30_000);
    afterAll(() => service.close());

    test("a save of two ranks becomes a checkpoint by its commit, and reads back in every way", async () => {
      const parts = makeParts(3, 2);
      const save = await beginSave(api, "whole", { step: 3, worldSize: 2, labels: { kind: "test" } });
      expect((await api("GET", save)).json.missingRanks).toEqual([0, 1]);
      await uploadParts(api, save, parts);
      expect((await api("GET", "/v1/runs/whole/checkpoints")).json).toEqual({ checkpoints: [] });
      expectProblem(await api("GET", "/v1/runs/whole/checkpoints/latest"), 404, "not-found");

      const committed = await api("POST", `${save}/commit`);
      expect(committed.status).toBe(200);
      expect(committed.json).toMatchObject({ state: "committed", checkpoint: "step-00000003" });
      const again = await api("POST", `${save}/commit`, { json: { manifest: committed.json.manifest } });
      expect(again.json.manifest).toBe(committed.json.manifest);

      const latest = await api("GET", "/v1/runs/whole/checkpoints/latest");
      const path = latest.headers.get("location")!;
      expect([latest.status, path]).toEqual([307, "/v1/runs/whole/checkpoints/step-00000003"]);
      const info = await api("GET", path);
      expect(info.json).toMatchObject({ step: 3, worldSize: 2, labels: { kind: "test" }, pinned: false });
      const manifest = await api("GET", `${path}/manifest`);
      expect(sha256(manifest.bytes)).toBe(String(info.json.manifest));
      expect(manifest.headers.get("repr-digest")).toBe(digestOf(manifest.bytes));
      const plain = await api("GET", `${path}/manifest`, { headers: { accept: "application/json" } });
      expect(plain.json).toMatchObject({
        step: 3,
        worldSize: 2,
        values: { loss: 1 },
        rankValues: [{ rank: 0 }, { rank: 1 }],
      });
      const file = await api("GET", `${path}/files/${parts[1]!.file}`);
      expect(file.bytes).toEqual(parts[1]!.data);
      const blob = await api("GET", `/v1/runs/whole/blobs/${sha256(parts[0]!.data)}`);
      expect(blob.bytes).toEqual(parts[0]!.data);
      expect((await api("GET", `${path}/tensors/model.w`)).bytes).toEqual(wholeTensor(2));
      const slice = await api("GET", `${path}/tensors/model.w?offsets=3,2&sizes=2,3`);
      expect([...new Float32Array(slice.bytes.slice().buffer)]).toEqual([26, 27, 28, 34, 35, 36]);
      expect(slice.headers.get("tensor-shape")).toBe("2,3");

      const exported = await api("GET", `${path}/export.safetensors`);
      const header = parseHeader(
        exported.bytes.subarray(
          8,
          8 + parseHeaderLength(exported.bytes.subarray(0, 8), exported.bytes.length),
        ),
        exported.bytes.length,
      );
      const { begin, end } = header.tensors.get("w")!;
      expect(exported.bytes.slice(header.dataBegin + begin, header.dataBegin + end)).toEqual(wholeTensor(2));
    });

    test("an upload goes on where it was cut, at the offset that the service holds", async () => {
      const bytes = someBytes(300_000);
      const save = await beginSave(api, "cut", { name: "a" });
      const upload = await beginUpload(api, save, "x.bin", {
        "upload-length": String(bytes.length),
        "repr-digest": digestOf(bytes),
      });
      expect((await append(api, upload, 0, bytes.slice(0, 100_000), false)).status).toBe(204);
      const wrong = await append(api, upload, 50_000, bytes.slice(50_000), true);
      expectProblem(wrong, 409, "offset-mismatch");
      expect(wrong.json.expectedOffset).toBe(100_000);
      expect(wrong.headers.get("upload-offset")).toBe("100000");
      const head = await api("HEAD", upload);
      expect([head.headers.get("upload-offset"), head.headers.get("upload-complete")]).toEqual([
        "100000",
        "?0",
      ]);
      expect(head.headers.get("upload-length")).toBe(String(bytes.length));
      const done = await append(api, upload, 100_000, bytes.slice(100_000), true);
      expect([done.status, done.headers.get("repr-digest")]).toEqual([201, digestOf(bytes)]);
      // The answer was lost: asked again, it is the same.
      const repeated = await append(api, upload, bytes.length, new Uint8Array(0), true);
      expect([repeated.status, repeated.headers.get("location")]).toEqual([
        201,
        done.headers.get("location"),
      ]);
      expect((await api("HEAD", upload)).headers.get("upload-complete")).toBe("?1");
      expect((await api("GET", `${save}/files/x.bin`)).bytes).toEqual(bytes);
    });

    test("the last rank's manifest commits a save that is to commit by itself", async () => {
      const parts = makeParts(1, 3);
      const save = await beginSave(api, "auto", { step: 1, worldSize: 3, commit: "auto" });
      const order = [2, 0, 1].map((rank) => parts[rank]!);
      const committed: unknown[] = [];
      for (const { rank, file, data, manifest } of order) {
        await putFile(api, save, file, data);
        const ask = { body: manifest, headers: MSGPACK };
        committed.push((await api("PUT", `${save}/ranks/${rank}/manifest`, ask)).json.committed);
        const repeated = await api("PUT", `${save}/ranks/${rank}/manifest`, ask);
        expect([repeated.status, repeated.json.committed]).toEqual([200, rank === 1]);
      }
      expect(committed).toEqual([false, false, true]);
      const { bytes } = await api("GET", "/v1/runs/auto/checkpoints/step-00000001/tensors/model.w");
      expect(bytes).toEqual(wholeTensor(3));
    });

    test("an aborted save is gone, and so is a deleted checkpoint; a pinned one stays", async () => {
      const aborted = await beginSave(api, "ends", { step: 1, worldSize: 1 });
      await uploadParts(api, aborted, makeParts(1, 1));
      const other = { headers: { "if-match": '"old"' } };
      expectProblem(await api("POST", `${aborted}/abort`, other), 412, "precondition");
      expect((await api("POST", `${aborted}/abort`)).status).toBe(204);
      expect((await api("POST", `${aborted}/abort`)).status).toBe(204);
      expectProblem(await api("POST", `${aborted}/commit`), 409, "not-open");
      const save = await beginSave(api, "ends", { step: 1, worldSize: 1 });
      await uploadParts(api, save, makeParts(1, 1));
      await api("POST", `${save}/commit`);
      expectProblem(await api("POST", `${save}/abort`), 409, "not-open");
      const path = "/v1/runs/ends/checkpoints/step-00000001";
      const pinned = await api("PATCH", path, { json: { pinned: true } });
      expect(pinned.json.pinned).toBe(true);
      expectProblem(await api("DELETE", path), 409, "pinned");
      const stale = { json: { pinned: false }, headers: { "if-match": '"old"' } };
      expectProblem(await api("PATCH", path, stale), 412, "precondition");
      const etag = pinned.headers.get("etag")!;
      expect(
        (await api("PATCH", path, { json: { pinned: false }, headers: { "if-match": etag } })).status,
      ).toBe(200);
      expect((await api("DELETE", path)).status).toBe(204);
      expectProblem(await api("DELETE", path), 404, "not-found");
      expect((await api("GET", "/v1/runs/ends/checkpoints")).json).toEqual({ checkpoints: [] });
    });

    test("a verification finds a changed byte and nothing else", async () => {
      const save = await beginSave(api, "rot", { step: 1, worldSize: 2 });
      await uploadParts(api, save, makeParts(1, 2));
      await api("POST", `${save}/commit`);
      const path = "/v1/runs/rot/checkpoints/step-00000001";
      const verify = async (): Promise<unknown> => {
        const started = await api("POST", `${path}/verify`);
        expect(started.status).toBe(202);
        for (;;) {
          const { json } = await api("GET", started.headers.get("location")!);
          if (json.state !== "running") return json.faults;
          await Bun.sleep(5);
        }
      };
      expect(await verify()).toEqual([]);
      const file = `${service.directory}/rot/step-00000001/rank-00001.safetensors`;
      const bytes = await Bun.file(file).bytes();
      bytes[bytes.length - 1]! ^= 1;
      await Bun.write(file, bytes);
      expect(await verify()).toEqual([
        { file: "rank-00001.safetensors", problem: expect.stringContaining("block 0") },
      ]);
      // Its elements are no longer handed out.
      const read = await api("GET", `${path}/tensors/model.w`).catch(() => undefined);
      expect(read?.status ?? 500).toBe(500);
    });

    test("subscribers see a save from its begin to its commit, and what they missed", async () => {
      const save = await beginSave(api, "seen", { step: 1, worldSize: 1 });
      const abort = new AbortController();
      const stream = await fetch(`${service.url}/v1/runs/seen/events`, {
        headers: { "last-event-id": "0" },
        signal: abort.signal,
      });
      expect(stream.headers.get("content-type")).toBe("text/event-stream");
      await uploadParts(api, save, makeParts(1, 1));
      await api("POST", `${save}/commit`);
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of stream.body!) {
        text += decoder.decode(chunk, { stream: true });
        if (text.includes("checkpoint-committed") && text.endsWith("\n\n")) break;
      }
      abort.abort();
      const types = [...text.matchAll(/^event: (.*)$/gm)].map(([, type]) => type);
      expect(types).toEqual([
        "save-begun",
        "upload-progress",
        "file-stored",
        "file-stored",
        "checkpoint-committed",
      ]);
      expect([...text.matchAll(/^id: (.*)$/gm)].map(([, id]) => Number(id))).toEqual([1, 2, 3, 4, 5]);
    });

    test("subscribers that went away make room for others", async () => {
      await beginSave(api, "room", { name: "a" });
      for (let i = 0; i < 100; i++) {
        const stream = await fetch(`${service.url}/v1/runs/room/events`);
        // Sixty-four at once: those that were left may take a moment to be noticed.
        if (stream.status === 429) await Bun.sleep(50);
        else expect(stream.status).toBe(200);
        await stream.body!.cancel();
      }
      const last = await fetch(`${service.url}/v1/runs/room/events`);
      expect(last.status).toBe(200);
      await last.body!.cancel();
    });

    test("the service answers for its health and describes itself", async () => {
      expect((await api("GET", "/healthz")).json).toEqual({ status: "ok" });
      const { json } = await api("GET", "/v1/openapi.json");
      expect(json.openapi).toBe("3.1.0");
      expect(Object.keys(json.paths as object)).toContain("/v1/runs/{run}/saves/{save}/commit");
      expect(service.errors.filter((error) => !String(error).includes("block 0"))).toEqual([]);
    });
  });
}

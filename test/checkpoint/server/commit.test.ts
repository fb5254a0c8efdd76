import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { appendFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { decodeManifest, encodeManifest, type Manifest } from "../../../checkpoint/manifest.ts";
import { mergeParts } from "../../../checkpoint/merge-parts.ts";
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
import { makeParts, type Part } from "./parts.ts";
import { makeFolder, type RunningService, SERVICES, startService } from "./service.ts";

const MSGPACK = { "content-type": "application/msgpack" };

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

  /** The manifest that a coordinator makes of the ranks' parts. */
  async function merged(parts: readonly Part[], createdAt = 5): Promise<Manifest> {
    const bytes = new Map(parts.map(({ manifestFile, manifest }) => [manifestFile, manifest]));
    const { step, worldSize } = parts[0]!.decoded;
    return mergeParts({ read: async (file) => bytes.get(file)! }, step, worldSize, createdAt);
  }

  /** A save that holds the ranks' data and a manifest, which may be wrong. */
  async function manifestSave(run: string, parts: readonly Part[], manifest: Manifest): Promise<string> {
    const save = await beginSave(api, run, { name: "step-00000001" });
    for (const { file, data } of parts) await putFile(api, save, file, data);
    await putFile(api, save, "manifest.msgpack", new Uint8Array(encodeManifest(manifest)));
    return save;
  }

  /** The faults for which a commit is refused. */
  async function refusal(save: string): Promise<string> {
    const answer = await api("POST", `${save}/commit`);
    expectProblem(answer, 422, "unproven");
    return (answer.json.faults as string[]).join("\n");
  }

  describe("a commit", () => {
    test("lists every hole, overlap, missing file and wrong digest, and leaves the save open to mend", async () => {
      const parts = makeParts(1, 2);
      const good = await merged(parts);
      const [first, second] = good.tensors[0]!.chunks;
      const tensor = good.tensors[0]!;
      const file = good.files[1]!;
      const withTensor = (chunks: typeof tensor.chunks): Manifest => ({
        ...good,
        tensors: [{ ...tensor, chunks }],
      });
      const withFile = (change: Partial<typeof file>): Manifest => ({
        ...good,
        files: [good.files[0]!, { ...file, ...change }],
      });
      const cases: readonly (readonly [string, Manifest])[] = [
        ["cover 32 of 64", withTensor([first!])],
        ["overlap", withTensor([first!, { ...second!, offsets: [3, 0] }])],
        ["outside shape", withTensor([first!, { ...second!, offsets: [5, 0] }])],
        [
          "share bytes",
          withTensor([first!, { ...second!, file: first!.file, begin: first!.begin, end: first!.end }]),
        ],
        ["SHA-256", withFile({ sha256: "0".repeat(64) })],
        ["block 0 does not match", withFile({ crc32: [1] })],
        ["bytes, listed are", withFile({ length: file.length - 1 })],
        ["not listed in the manifest", { ...good, files: [good.files[0]!], tensors: [] }],
        ["file extra: missing", { ...good, files: [...good.files, { ...file, name: "extra" }] }],
        ["rank values", { ...good, rankValues: [{}] }],
      ];
      for (const [i, [fault, manifest]] of cases.entries()) {
        expect(await refusal(await manifestSave(`bad-${i}`, parts, manifest))).toContain(fault);
      }
      const save = await manifestSave("mended", parts, withTensor([first!]));
      await refusal(save);
      await api("DELETE", `${save}/files/manifest.msgpack`);
      await putFile(api, save, "manifest.msgpack", new Uint8Array(encodeManifest(good)));
      expect((await api("POST", `${save}/commit`)).status).toBe(200);
    });

    test("needs a manifest, or every rank's; and no upload half way", async () => {
      const parts = makeParts(1, 3);
      const save = await beginSave(api, "ranks", { step: 1, worldSize: 3 });
      await uploadParts(api, save, [parts[1]!]);
      expect(await refusal(save)).toBe("rank 0: its manifest is missing\nrank 2: its manifest is missing");
      const named = await beginSave(api, "ranks", { name: "a" });
      expect(await refusal(named)).toContain("manifest.msgpack: missing");
      await uploadParts(api, save, [parts[0]!, parts[2]!]);
      const upload = await beginUpload(api, save, "late");
      expect(await refusal(save)).toBe("file late: its upload is not complete");
      await api("DELETE", upload);
      expect((await api("POST", `${save}/commit`)).status).toBe(200);
    });

    test("of the service's own merge is byte for byte the coordinator's", async () => {
      const parts = makeParts(1, 4);
      const now = 1234;
      const own = await startService({ now: () => now });
      const ask = apiOf(own.url);
      const save = await beginSave(ask, "a", { step: 1, worldSize: 4 });
      await uploadParts(ask, save, parts);
      await ask("POST", `${save}/commit`);
      const { bytes } = await ask("GET", "/v1/runs/a/checkpoints/step-00000001/manifest");
      expect(bytes).toEqual(new Uint8Array(encodeManifest(await merged(parts, now))));
      await own.close();
    });

    test("takes a rank's manifest only with the bytes it lists, for this step and world", async () => {
      const [part] = makeParts(1, 2);
      const save = await beginSave(api, "parts", { step: 1, worldSize: 2 });
      const put = (rank: number, body: Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}) =>
        api("PUT", `${save}/ranks/${rank}/manifest`, { body, headers: { ...MSGPACK, ...headers } });
      const lacking = await put(0, part!.manifest);
      expectProblem(lacking, 422, "blob-unknown");
      expect(lacking.json.blobs).toEqual([sha256(part!.data)]);
      // The bytes may come as a blob: the manifest names the file.
      const blob = { body: part!.data, headers: { "content-type": "application/octet-stream" } };
      await api("PUT", `/v1/runs/parts/blobs/${sha256(part!.data)}`, blob);
      const bad = part!.manifest.slice();
      bad[bad.length - 1]! ^= 1;
      expectProblem(await put(0, bad), 422, "invalid");
      expectProblem(await put(0, someBytes(100)), 422, "invalid");
      expectProblem(
        await put(0, part!.manifest, { "content-digest": `sha-256=:${"A".repeat(43)}=:` }),
        400,
        "content-digest",
      );
      expectProblem(await put(2, part!.manifest), 422, "invalid");
      expectProblem(await put(0, makeParts(2, 2)[0]!.manifest), 422, "invalid");
      expectProblem(await put(0, makeParts(1, 3)[0]!.manifest), 422, "invalid");
      for (const [fault, change] of [
        ["outside shape", { offsets: [5, 0] }],
        ["empty", { sizes: [0, 8] }],
        ["ends at byte", { begin: 2 ** 20, end: 2 ** 20 + 128 }],
      ] as const) {
        const [wrong] = makeParts(1, 2, {
          change: (manifest) => ({
            ...manifest,
            tensors: manifest.tensors.map((tensor) => ({
              ...tensor,
              chunks: tensor.chunks.map((chunk) => ({ ...chunk, ...change })),
            })),
          }),
        });
        const answer = await put(0, wrong!.manifest);
        expectProblem(answer, 422, "invalid");
        expect(String(answer.json.faults)).toContain(fault);
      }
      expect((await put(0, part!.manifest)).status).toBe(201);
      const other = makeParts(1, 2, { shift: 1 })[0]!;
      expectProblem(await put(0, other.manifest), 409, "already-exists");
      expectProblem(await put(0, other.manifest, { "if-none-match": "*" }), 412, "precondition");
    });

    test("of many coordinators at once is won by one, whose bytes are read", async () => {
      for (let round = 0; round < 8; round++) {
        const run = `race-${round}`;
        const saves = await Promise.all(
          Array.from({ length: 6 }, async (_, i) => {
            const parts = makeParts(1, 1, { shift: i });
            return manifestSave(run, parts, await merged(parts, i));
          }),
        );
        const answers = await Promise.all(saves.map((save) => api("POST", `${save}/commit`)));
        const winners = answers.flatMap(({ status }, i) => (status === 200 ? [i] : []));
        expect(winners.length).toBe(1);
        for (const answer of answers)
          if (answer.status !== 200) expectProblem(answer, 409, "already-committed");
        const { bytes } = await api("GET", `/v1/runs/${run}/checkpoints/step-00000001/manifest`);
        expect(decodeManifest(bytes).createdAt).toBe(winners[0]!);
      }
    });

    test("may say which ranks' manifests it means, and tells when it happened", async () => {
      const parts = makeParts(1, 2);
      const save = await beginSave(api, "meant", { step: 1, worldSize: 2 });
      await uploadParts(api, save, parts);
      const commit = (ranks: readonly string[]) => api("POST", `${save}/commit`, { json: { ranks } });
      const meant = parts.map(({ manifest }) => sha256(manifest));
      for (const ranks of [meant.toReversed(), [...meant, "0".repeat(64)], meant.slice(1), []]) {
        expectProblem(await commit(ranks), 422, "digest-mismatch");
      }
      expect((await api("GET", save)).json.committedAt).toBeUndefined();
      const first = await commit(meant);
      expect([first.status, typeof first.json.committedAt]).toEqual([200, "number"]);
      expect((await commit(meant)).json).toEqual(first.json);
      expectProblem(await commit(meant.toReversed()), 409, "already-committed");
    });

    test("answers again as it did, and not to another manifest", async () => {
      const parts = makeParts(1, 1);
      const save = await manifestSave("again", parts, await merged(parts));
      const wrong = { json: { manifest: "0".repeat(64) } };
      expectProblem(await api("POST", `${save}/commit`, wrong), 422, "digest-mismatch");
      const etag = (await api("GET", save)).headers.get("etag")!;
      expectProblem(
        await api("POST", `${save}/commit`, { headers: { "if-match": '"x"' } }),
        412,
        "precondition",
      );
      const first = await api("POST", `${save}/commit`, { headers: { "if-match": etag } });
      expect([first.status, (await api("POST", `${save}/commit`)).status]).toEqual([200, 200]);
      expectProblem(await api("POST", `${save}/commit`, wrong), 409, "already-committed");
      expectProblem(await api("POST", `${save}/uploads?file=x`), 409, "not-open");
      expectProblem(
        await api("POST", "/v1/runs/again/saves", { json: { step: 1 } }),
        409,
        "already-committed",
      );
    });

    test("stores equal files once: checkpoints share them, and deleting one keeps the other whole", async () => {
      const commit = async (step: number): Promise<void> => {
        const save = await beginSave(api, "dedupe", { step, worldSize: 1 });
        await uploadParts(api, save, makeParts(step, 1, { rows: 1000 }));
        expect((await api("POST", `${save}/commit`)).status).toBe(200);
      };
      await commit(1);
      await commit(2);
      const file = (step: number) =>
        join(service.directory, "dedupe", `step-0000000${step}`, "rank-00000.safetensors");
      const inode = (step: number) => readInode(file(step));
      expect(inode(1)).toBe(inode(2));
      await api("DELETE", "/v1/runs/dedupe/checkpoints/step-00000001");
      expect(
        (await api("GET", "/v1/runs/dedupe/checkpoints/step-00000002/files/rank-00000.safetensors")).bytes,
      ).toEqual(makeParts(2, 1, { rows: 1000 })[0]!.data);
    });
  });
});
function readInode(path: string): number {
  return statSync(path).ino;
}

describe("a service that is started again", () => {
  test("goes on with saves, uploads and answers where the last one stood, whatever half line it left", async () => {
    const { folder, remove } = makeFolder();
    const bytes = someBytes(50_000);
    const parts = makeParts(7, 2);
    let one = await startService({ directory: folder });
    let ask = apiOf(one.url);
    const begun = { json: { step: 7, worldSize: 2 }, headers: { "idempotency-key": "k" } };
    const save = (await ask("POST", "/v1/runs/a/saves", begun)).headers.get("location")!;
    await uploadParts(ask, save, [parts[0]!]);
    const keyed = { "upload-length": "50000", "idempotency-key": "u" };
    const upload = await beginUpload(ask, save, "x", keyed);
    await append(ask, upload, 0, bytes.slice(0, 20_000), false);
    await one.close();
    const journal = join(folder, ".service", "a", "saves", save.split("/").at(-1)!, "journal.jsonl");
    appendFileSync(journal, '{"type":"remove","fi');

    one = await startService({ directory: folder });
    ask = apiOf(one.url);
    expect((await ask("POST", "/v1/runs/a/saves", begun)).headers.get("location")).toBe(save);
    expect((await ask("HEAD", upload)).headers.get("upload-offset")).toBe("20000");
    const done = await append(ask, upload, 20_000, bytes.slice(20_000), true);
    expect([done.status, done.headers.get("etag")]).toEqual([201, `"${sha256(bytes)}"`]);
    await ask("DELETE", `${save}/files/x`);
    await one.close();

    one = await startService({ directory: folder });
    ask = apiOf(one.url);
    expect(await beginUpload(ask, save, "x", keyed)).toBe(upload);
    await uploadParts(ask, save, [parts[1]!]);
    const committed = await ask("POST", `${save}/commit`);
    expect(committed.status).toBe(200);
    await one.close();

    one = await startService({ directory: folder });
    ask = apiOf(one.url);
    expect((await ask("POST", `${save}/commit`)).json.manifest).toBe(committed.json.manifest);
    expect((await ask("GET", "/v1/runs/a/checkpoints")).json.checkpoints).toHaveLength(1);
    expect(one.errors).toEqual([]);
    await one.close();
    remove();
  });

  test("knows a commit that took place although its journal does not say so", async () => {
    const { folder, remove } = makeFolder();
    let one = await startService({ directory: folder });
    let ask = apiOf(one.url);
    const save = await beginSave(ask, "a", { step: 1, worldSize: 1 });
    await uploadParts(ask, save, makeParts(1, 1));
    const { manifest } = (await ask("POST", `${save}/commit`)).json;
    const other = await beginSave(ask, "a", { name: "other" });
    await one.close();
    // As if the process had died right after the rename.
    const journal = join(folder, ".service", "a", "saves", save.split("/").at(-1)!, "journal.jsonl");
    const lines = (await Bun.file(journal).text()).trimEnd().split("\n");
    expect(lines.at(-1)).toContain('"committed"');
    await Bun.write(journal, `${lines.slice(0, -1).join("\n")}\n`);
    one = await startService({ directory: folder });
    ask = apiOf(one.url);
    expect((await ask("GET", save)).json.state).toBe("committed");
    expect((await ask("POST", `${save}/commit`)).json.manifest).toBe(manifest);
    expect((await ask("GET", other)).json.state).toBe("open");
    expect(readdirSync(join(folder, "a"))).toEqual(["step-00000001"]);
    await one.close();
    remove();
  });
});

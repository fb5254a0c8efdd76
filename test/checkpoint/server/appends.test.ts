import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import { seeded } from "../../support/random.ts";
import { runRanks, settleRanks } from "../ranks.ts";
import { dimZero, patternTensor, shardedState } from "../states.ts";
import { type Api, apiOf, append, beginSave, beginUpload, expectProblem, sha256, someBytes } from "./api.ts";
import { type RunningService, SERVICES } from "./service.ts";

const MIB = 1024 * 1024;

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

  /** Begins an append by hand, of which only `sent` bytes are sent. */
  function beginAppend(upload: string, offset: number, length: number, sent: Uint8Array): Socket {
    const { hostname, port, host } = new URL(service.url);
    const socket = connect(Number(port), hostname);
    socket.on("error", () => undefined);
    socket.write(
      `PATCH ${upload} HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/partial-upload\r\n` +
        `upload-offset: ${offset}\r\nupload-complete: ?0\r\ncontent-length: ${length}\r\n\r\n`,
    );
    socket.write(sent);
    return socket;
  }

  describe("appends", () => {
    test("sent at once come in one after the other, in whatever order they arrive, small and large", async () => {
      const seed = Math.floor(Math.random() * 2 ** 31);
      console.log(`appends: seed ${seed}`);
      const choices = seeded(seed);
      for (const [round, length] of [3000, 100_000, 9 * MIB + 17, 6 * MIB].entries()) {
        const bytes = someBytes(length, seed + round);
        const save = await beginSave(api, "at-once", { name: `a${round}` });
        // Large ones are announced or not: those are written in another way.
        const announced: Record<string, string> = choices.chance(0.5) ? { "upload-length": `${length}` } : {};
        const upload = await beginUpload(api, save, "x", announced);
        const inner = Array.from(
          { length: 4 },
          (_, i) => Math.floor(((i + choices.number()) * length) / 4) + 1,
        );
        const cuts = [0, ...inner.map((cut) => Math.min(cut, length - 1)), length];
        const parts = cuts.slice(1).map((end, i) => ({ begin: cuts[i]!, end }));
        const order = parts.map((part) => [choices.number(), part] as const).sort(([a], [b]) => a - b);
        const answers = await Promise.all(
          order.map(([, { begin, end }]) =>
            append(api, upload, begin, bytes.slice(begin, end), end === length),
          ),
        );
        const statuses = answers.map(({ status }) => status).sort();
        expect(statuses).toEqual([201, 204, 204, 204, 204]);
        const stored = await api("GET", `${save}/files/x`);
        expect(sha256(stored.bytes)).toBe(sha256(bytes));
        expect(stored.headers.get("etag")).toBe(`"${sha256(bytes)}"`);
      }
    }, 30_000);

    test("whose predecessor never comes are told where the upload stands", async () => {
      const save = await beginSave(api, "alone", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      const answer = await append(api, upload, 500, someBytes(10), false);
      expectProblem(answer, 409, "offset-mismatch");
      expect(answer.headers.get("upload-offset")).toBe("0");
    });

    test("whose predecessor is cut are refused, and what came of it stays", async () => {
      const bytes = someBytes(300_000, 5);
      const save = await beginSave(api, "cut", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      const socket = beginAppend(upload, 0, 200_000, bytes.subarray(0, 150_000));
      await Bun.sleep(50);
      const next = append(api, upload, 200_000, bytes.slice(200_000), true);
      await Bun.sleep(50);
      socket.destroy();
      expectProblem(await next, 409, "offset-mismatch");
      const offset = Number((await api("HEAD", upload)).headers.get("upload-offset"));
      expect(offset).toBeGreaterThan(0);
      expect(offset).toBeLessThanOrEqual(150_000);
      expect((await append(api, upload, offset, bytes.slice(offset), true)).status).toBe(201);
      expect(sha256((await api("GET", `${save}/files/x`)).bytes)).toBe(sha256(bytes));
    });

    test("that wait for their turn end when a client asks where the upload stands", async () => {
      const bytes = someBytes(400_000, 6);
      const save = await beginSave(api, "asked", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      const sockets = [
        beginAppend(upload, 0, 100_000, bytes.subarray(0, 50_000)),
        beginAppend(upload, 100_000, 100_000, bytes.subarray(100_000, 150_000)),
      ];
      await Bun.sleep(50);
      const offset = Number((await api("HEAD", upload)).headers.get("upload-offset"));
      expect(offset).toBeLessThanOrEqual(50_000);
      expect((await append(api, upload, offset, bytes.slice(offset), true)).status).toBe(201);
      for (const socket of sockets) socket.destroy();
      expect(sha256((await api("GET", `${save}/files/x`)).bytes)).toBe(sha256(bytes));
    });

    test("that the network brings once more end nothing", async () => {
      const bytes = someBytes(200_000, 7);
      const save = await beginSave(api, "again", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      expect((await append(api, upload, 0, bytes.slice(0, 1000), false)).status).toBe(204);
      const socket = beginAppend(upload, 1000, 99_000, bytes.subarray(1000, 50_000));
      await Bun.sleep(50);
      expectProblem(await append(api, upload, 0, bytes.slice(0, 1000), false), 409, "offset-mismatch");
      socket.write(bytes.subarray(50_000, 100_000));
      expect((await append(api, upload, 100_000, bytes.slice(100_000), true)).status).toBe(201);
      socket.destroy();
      expect(sha256((await api("GET", `${save}/files/x`)).bytes)).toBe(sha256(bytes));
    });

    test("of bytes that do not match their digest are taken back, and those behind them refused", async () => {
      const bytes = someBytes(9 * MIB, 8);
      const save = await beginSave(api, "wrong", { name: "a" });
      const upload = await beginUpload(api, save, "x");
      const wrong = { "content-digest": `sha-256=:${Buffer.alloc(32).toString("base64")}:` };
      const [first, second] = await Promise.all([
        append(api, upload, 0, bytes.slice(0, 5 * MIB), false, wrong),
        append(api, upload, 5 * MIB, bytes.slice(5 * MIB), true),
      ]);
      expectProblem(first, 400, "content-digest");
      expectProblem(second, 409, "offset-mismatch");
      expect((await api("HEAD", upload)).headers.get("upload-offset")).toBe("0");
      expect((await append(api, upload, 0, bytes, true)).status).toBe(201);
      expect(sha256((await api("GET", `${save}/files/x`)).bytes)).toBe(sha256(bytes));
    });

    test("of a store's client in many parts give what one part gives", async () => {
      const tensors = [patternTensor("model.w", "float32", [701, 33])];
      const digests = await Promise.all(
        [100, 1000, 1 << 22].map(async (partBytes) => {
          const store = httpStore(`${service.url}/runs/parts-${partBytes}`, { partBytes });
          const checkpointer = nativeCheckpointer(store, { now: () => 0 });
          await runRanks(2, (collective) =>
            checkpointer.save(shardedState(tensors, dimZero(2), collective.rank), 1, collective),
          );
          expect(await checkpointer.verify("step-00000001")).toEqual([]);
          return sha256(await store.read("step-00000001", "rank-00001.safetensors", 0, 46_000));
        }),
      );
      expect(new Set(digests).size).toBe(1);
    }, 30_000);

    test("whose bytes changed on the way are found when the save commits, and nothing is committed", async () => {
      let flipped = 0;
      const store = httpStore(`${service.url}/runs/flipped`, {
        partBytes: 5000,
        fetch: (url, init) => {
          const body = init.body;
          if (init.method !== "PATCH" || !(body instanceof Uint8Array) || body.length < 5000 || flipped > 0) {
            return fetch(url, init);
          }
          const changed = body.slice();
          changed[changed.length - 1]! ^= 1;
          flipped++;
          return fetch(url, { ...init, body: changed });
        },
      });
      const checkpointer = nativeCheckpointer(store);
      const tensors = [patternTensor("model.w", "float32", [100, 50])];
      const results = await settleRanks(2, (collective) =>
        checkpointer.save(shardedState(tensors, dimZero(2), collective.rank), 1, collective),
      );
      expect(flipped).toBe(1);
      for (const result of results) {
        expect(result.status === "rejected" ? String(result.reason) : "saved").toContain(
          "block 0 does not match its checksum",
        );
      }
      expect(await store.list()).toEqual([]);
    });
  });

  describe("answers", () => {
    test("reach readers of any pace whole and unchanged, several at once", async () => {
      const bytes = someBytes(24 * MIB + 333, 9);
      const save = await beginSave(api, "slow", { name: "a" });
      expect((await append(api, await beginUpload(api, save, "x"), 0, bytes, true)).status).toBe(201);
      const { hostname, port, host } = new URL(service.url);
      const read = (begin: number, end: number, pauseEvery: number): Promise<string> => {
        const { promise, resolve, reject } = Promise.withResolvers<string>();
        const socket = connect(Number(port), hostname);
        const chunks: Buffer[] = [];
        let length = 0;
        let paused = 0;
        socket.write(
          `GET ${save}/files/x HTTP/1.1\r\nhost: ${host}\r\nrange: bytes=${begin}-${end - 1}\r\nconnection: close\r\n\r\n`,
        );
        socket.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          length += chunk.length;
          if (length < (paused + 1) * pauseEvery) return;
          paused++;
          socket.pause();
          setTimeout(() => socket.resume(), 20);
        });
        socket.on("error", reject);
        socket.on("close", () => resolve(sha256(bodyOf(Buffer.concat(chunks)))));
        return promise;
      };
      const ranges = [
        [0, bytes.length, 2 * MIB],
        [1, 20 * MIB + 5, 512 * 1024],
        [7 * MIB, bytes.length, 100 * MIB],
      ] as const;
      const digests = await Promise.all(ranges.map(([begin, end, pause]) => read(begin, end, pause)));
      expect(digests).toEqual(ranges.map(([begin, end]) => sha256(bytes.subarray(begin, end))));
    }, 30_000);
  });
});

/** The body of an answer off the wire, its chunks put together. */
function bodyOf(answer: Buffer): Buffer {
  const head = answer.indexOf("\r\n\r\n") + 4;
  if (!/transfer-encoding: chunked/i.test(answer.subarray(0, head).toString("latin1"))) {
    return answer.subarray(head);
  }
  const chunks: Buffer[] = [];
  for (let at = head; at < answer.length; ) {
    const line = answer.indexOf("\r\n", at);
    const length = Number.parseInt(answer.subarray(at, line).toString("latin1"), 16);
    if (!(length > 0)) break;
    chunks.push(answer.subarray(line + 2, line + 2 + length));
    at = line + 2 + length + 2;
  }
  return Buffer.concat(chunks);
}

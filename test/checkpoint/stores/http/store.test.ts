import { afterAll, describe, expect, test } from "bun:test";
import { nativeCheckpointer } from "../../../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../../../checkpoint/stores/directory.ts";
import { httpStore, openHttpStore } from "../../../../checkpoint/stores/http/store.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";
import { runRanks, settleRanks } from "../../ranks.ts";
import { sha256, someBytes } from "../../server/api.ts";
import { makeFolder, type RunningService, spawnService, startService } from "../../server/service.ts";
import { cutBox, dimZero, emptyState, patternTensor, replicated, shardedState } from "../../states.ts";

const { folder, remove } = makeFolder();
afterAll(remove);

const TENSORS = [
  patternTensor("model.w", "float32", [601, 700]),
  patternTensor("model.b", "float16", [5]),
  patternTensor("optim.s", "int64", []),
];

/** Loads on `size` ranks and says whether all came as it was saved. */
async function loads(checkpointer: ReturnType<typeof nativeCheckpointer>, size: number): Promise<boolean> {
  const ranks = await runRanks(size, async (collective) => {
    const layout = size === 2 ? replicated : dimZero(size);
    const { state, filled } = emptyState(TENSORS, layout, collective.rank);
    await checkpointer.load(state, "latest", collective);
    return filled.every(({ tensor, box, bytes }) => Buffer.compare(bytes, cutBox(tensor, box)) === 0);
  });
  return ranks.every(Boolean);
}

describe("the HTTP store", () => {
  test("holds what the directory holds, and is one to every tool on the server's side", async () => {
    const service = await startService();
    const remote = nativeCheckpointer(httpStore(`${service.url}/runs/a`), { now: () => 5 });
    const local = nativeCheckpointer(directoryStore(`${folder}/local`), { now: () => 5 });
    for (const checkpointer of [remote, local]) {
      await runRanks(4, (collective) =>
        checkpointer.save(shardedState(TENSORS, dimZero(4), collective.rank, { a: [1] }), 3, collective),
      );
    }
    const names = ["manifest.msgpack", ...[0, 1, 2, 3].map((rank) => `rank-0000${rank}.safetensors`)];
    for (const name of names) {
      const [a, b] = [`${service.directory}/a`, `${folder}/local`].map((at) => `${at}/step-00000003/${name}`);
      expect(sha256(await Bun.file(a!).bytes())).toBe(sha256(await Bun.file(b!).bytes()));
    }
    expect(await remote.list()).toEqual(await local.list());
    expect(await remote.verify("step-00000003")).toEqual([]);
    for (const size of [1, 2, 3, 7]) expect(await loads(remote, size)).toBe(true);
    expect(service.errors).toEqual([]);
    await service.close();
  });

  test("sees just the checkpoint that its location names", async () => {
    const service = await startService();
    const all = nativeCheckpointer(httpStore(`${service.url}/runs/a`));
    for (const step of [1, 2]) {
      await runRanks(1, (collective) => all.save(shardedState(TENSORS, dimZero(1), 0), step, collective));
    }
    const one = httpStore(`${service.url}/runs/a/step-00000001`);
    expect(await one.list()).toEqual(["step-00000001"]);
    expect((await nativeCheckpointer(one).list()).map(({ step }) => step)).toEqual([1]);
    await expect(one.files("step-00000002")).rejects.toThrow(CheckpointError);
    await expect(one.begin("step-00000003")).rejects.toThrow(CheckpointError);
    expect(await httpStore(`${service.url}/runs/a/step-00000009`).list()).toEqual([]);
    await service.close();
  });

  test("lists more checkpoints than a page holds", async () => {
    const service = await startService({ proveCommits: false });
    const store = httpStore(`${service.url}/runs/a`);
    const local = directoryStore(`${service.directory}/a`);
    const names = Array.from({ length: 1003 }, (_, i) => `step-${String(i).padStart(8, "0")}`);
    for (const name of names) await Bun.write(`${service.directory}/a/${name}/manifest.msgpack`, "x");
    expect(await store.list()).toEqual(names);
    expect(await local.list()).toEqual(names);
    await service.close();
  });

  test("reads only the ranges it needs", async () => {
    const service = await startService();
    const all = nativeCheckpointer(httpStore(`${service.url}/runs/a`));
    await runRanks(1, (collective) => all.save(shardedState(TENSORS, dimZero(1), 0), 1, collective));
    let bytes = 0;
    const counted = httpStore(`${service.url}/runs/a`, {
      fetch: async (url, init) => {
        const response = await fetch(url, init);
        if (url.endsWith(".safetensors") && init.method === "GET")
          bytes += Number(response.headers.get("content-size"));
        return response;
      },
    });
    const [small] = await runRanks(1, async (collective) => {
      const { state, filled } = emptyState([TENSORS[1]!], dimZero(1), 0);
      await nativeCheckpointer(counted).load(state, "latest", collective);
      return filled[0]!.bytes;
    });
    expect(small).toEqual(cutBox(TENSORS[1]!, { offsets: [0], sizes: [5] }));
    // One block of a file of 1.7 MB.
    expect(bytes).toBeLessThanOrEqual(1024 * 1024);
    await service.close();
  });

  test("a file that stays the same is linked, not sent again", async () => {
    const service = await startService();
    let sent = 0;
    const store = httpStore(`${service.url}/runs/a`, {
      fetch: (url, init) => {
        if (init.method === "PATCH") sent += (init.body as Uint8Array).length;
        return fetch(url, init);
      },
    });
    const checkpointer = nativeCheckpointer(store);
    const constant = { ...shardedState(TENSORS, dimZero(1), 0) };
    const state = { ...constant, tensors: constant.tensors.map((tensor) => ({ ...tensor, constant: true })) };
    await runRanks(1, (collective) => checkpointer.save(state, 1, collective));
    const first = sent;
    await runRanks(1, (collective) => checkpointer.save(state, 2, collective));
    expect(first).toBeGreaterThan(1_600_000);
    expect(sent - first).toBeLessThan(100_000);
    await service.close();
  });

  test("does not link to bytes that have rotted: they are sent again, and the new checkpoint is whole", async () => {
    const service = await startService({
      now: (() => {
        let now = 0;
        return () => (now += 3_600_001);
      })(),
      limits: { saveSeconds: 1e9 },
    });
    const store = httpStore(`${service.url}/runs/a`);
    const checkpointer = nativeCheckpointer(store, { now: () => 0 });
    const whole = shardedState(TENSORS, dimZero(1), 0);
    const state = { ...whole, tensors: whole.tensors.map((tensor) => ({ ...tensor, constant: true })) };
    await runRanks(1, (collective) => checkpointer.save(state, 1, collective));
    for (const file of await store.files("step-00000001")) {
      if (!file.endsWith(".safetensors")) continue;
      const path = `${service.directory}/a/step-00000001/${file}`;
      const bytes = await Bun.file(path).bytes();
      bytes[bytes.length - 1]! ^= 1;
      await Bun.write(path, bytes);
    }
    await runRanks(1, (collective) => checkpointer.save(state, 2, collective));
    expect((await checkpointer.verify("step-00000001")).length).toBeGreaterThan(0);
    expect(await checkpointer.verify("step-00000002")).toEqual([]);
    await service.close();
  });

  test("goes on with an upload where a cut left it, and sends nothing twice that arrived", async () => {
    const service = await startService();
    const bytes = someBytes(20_000_000);
    let sent = 0;
    let cuts = 0;
    const store = httpStore(`${service.url}/runs/a`, {
      fetch: async (url, init) => {
        if (init.method !== "PATCH") return fetch(url, init);
        const body = init.body as Uint8Array<ArrayBuffer>;
        if (cuts >= 5 || body.length < 1000) {
          sent += body.length;
          return fetch(url, init);
        }
        // Half of it arrives, then the connection is gone.
        cuts++;
        const half = body.slice(0, body.length >> 1);
        sent += half.length;
        await fetch(url, { ...init, body: half, headers: { ...init.headers, "upload-complete": "?0" } });
        throw new TypeError("cut");
      },
    });
    const transaction = await store.begin("a");
    const writer = await transaction.create("x");
    for (let at = 0; at < bytes.length; at += 3_333_333)
      await writer.write(bytes.subarray(at, at + 3_333_333));
    await writer.close();
    expect(Buffer.compare(await transaction.read("x"), bytes)).toBe(0);
    expect([cuts, sent]).toEqual([5, bytes.length]);
    await transaction.abort();
    await service.close();
  });

  test("is refused room before it sends a byte, on every rank alike", async () => {
    const service = await startService({ freeBytes: async () => 1_000_000, limits: { keepFreeBytes: 0 } });
    let sent = 0;
    const store = httpStore(`${service.url}/runs/a`, {
      fetch: (url, init) => {
        if (init.method === "PATCH") sent += (init.body as Uint8Array).length;
        return fetch(url, init);
      },
    });
    const save = await settleRanks(1, (collective) =>
      nativeCheckpointer(store).save(shardedState(TENSORS, dimZero(1), 0), 1, collective),
    );
    const [result] = save;
    expect(result!.status === "rejected" && String(result!.reason)).toContain("are free (status 507)");
    expect([sent, await store.list()]).toEqual([0, []]);
    await service.close();
  });

  test("takes its token from the environment, and is refused without it", async () => {
    const token = "a-token-of-a-test";
    const digest = sha256(new TextEncoder().encode(token));
    const service = await startService({
      tokens: [{ name: "t", sha256: digest, scopes: ["read", "write", "commit"], run: "mine" }],
    });
    const before = process.env.FSDP_TOKEN;
    try {
      process.env.FSDP_TOKEN = token;
      const checkpointer = nativeCheckpointer(openHttpStore(`${service.url}/runs/mine`)!);
      await runRanks(2, (collective) =>
        checkpointer.save(shardedState(TENSORS, dimZero(2), collective.rank), 1, collective),
      );
      expect(await loads(checkpointer, 3)).toBe(true);
      const others = openHttpStore(`${service.url}/runs/theirs`)!;
      await expect(others.begin("a")).rejects.toThrow("there is no run theirs (status 404)");
      process.env.FSDP_TOKEN = "another";
      const refused = openHttpStore(`${service.url}/runs/mine`)!;
      await expect(refused.list()).rejects.toThrow("unknown or expired (status 401)");
    } finally {
      if (before === undefined) delete process.env.FSDP_TOKEN;
      else process.env.FSDP_TOKEN = before;
      await service.close();
    }
  });
});

describe("a service that dies in the middle of a save", () => {
  /** A save of four ranks in which the `at`-th request meets a service that dies, and comes back, before or after it. */
  async function saveThrough(runtime: "bun" | "deno", at: number, when: "before" | "after"): Promise<number> {
    const directory = `${folder}/${runtime}-${at}-${when}`;
    let service: RunningService = await spawnService(runtime, directory);
    const { port } = new URL(service.url);
    const restart = async (): Promise<void> => {
      service.child!.kill("SIGKILL");
      await service.child!.exited;
      service = await spawnService(runtime, directory, ["--port", port]);
    };
    let requests = 0;
    const store = httpStore(`${service.url}/runs/a`, {
      retryForMs: 20_000,
      fetch: async (url, init) => {
        const strikes = ++requests === at;
        if (strikes && when === "before") await restart();
        const response = await fetch(url, init);
        if (!strikes || when === "before") return response;
        await response.arrayBuffer();
        await restart();
        throw new TypeError("the answer was lost");
      },
    });
    const checkpointer = nativeCheckpointer(store, { now: () => 1 });
    try {
      await runRanks(4, (collective) =>
        checkpointer.save(shardedState(TENSORS, dimZero(4), collective.rank), 1, collective),
      );
      expect(await loads(checkpointer, 3)).toBe(true);
      expect(await nativeCheckpointer(directoryStore(`${directory}/a`)).verify("step-00000001")).toEqual([]);
      return requests;
    } finally {
      await service.close();
    }
  }

  test("does not keep it from being completed, whenever that is", async () => {
    for (const at of [3, 8, 14, 21, 26, 30]) await saveThrough("bun", at, at % 2 === 0 ? "before" : "after");
    await saveThrough("deno", 11, "after");
  }, 60_000);

  test("and does not come back makes every rank's save fail alike, and a later save succeeds", async () => {
    const directory = `${folder}/gone`;
    let service = await spawnService("bun", directory);
    const { port } = new URL(service.url);
    let requests = 0;
    const store = httpStore(`${service.url}/runs/a`, {
      retryForMs: 300,
      fetch: async (url, init) => {
        if (++requests === 12) {
          service.child!.kill("SIGKILL");
          await service.child!.exited;
        }
        return fetch(url, init);
      },
    });
    const checkpointer = nativeCheckpointer(store);
    const save = () =>
      settleRanks(4, (collective) =>
        checkpointer.save(shardedState(TENSORS, dimZero(4), collective.rank), 1, collective),
      );
    const failed = await save();
    const reasons = failed.map((result) => (result.status === "rejected" ? String(result.reason) : "saved"));
    expect(new Set(reasons).size).toBe(1);
    expect(reasons[0]).toContain("CheckpointError: save of step 1");
    service = await spawnService("bun", directory, ["--port", port]);
    expect(await store.list()).toEqual([]);
    const again = await save();
    expect(again.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "fulfilled", "fulfilled"]);
    expect(await loads(checkpointer, 2)).toBe(true);
    await service.close();
  }, 30_000);
});

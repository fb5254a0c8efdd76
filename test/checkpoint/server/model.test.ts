import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { createCheckpointApp } from "../../../checkpoint/server/app.ts";
import { sha256, someBytes } from "./api.ts";
import { makeFolder } from "./service.ts";

const { folder, remove } = makeFolder();
afterAll(remove);

/** Few names and few contents, so that everything meets everything. */
const CONTENTS = [0, 1, 2, 3].map((seed) => someBytes(50 + seed, seed + 1));
const FILES = ["manifest.msgpack", "x", "y"];
const NAMES = ["a", "b"];
const SAVE_SECONDS = 1000;
const GRACE_SECONDS = 300;

type Op =
  | { readonly type: "begin"; readonly name: number }
  | { readonly type: "put" | "link"; readonly save: number; readonly file: number; readonly content: number }
  | { readonly type: "remove"; readonly save: number; readonly file: number }
  | { readonly type: "commit" | "abort"; readonly save: number }
  | { readonly type: "delete"; readonly name: number }
  | { readonly type: "wait"; readonly seconds: number }
  | { readonly type: "restart" };

const index = fc.nat({ max: 5 });
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ type: fc.constant("begin" as const), name: index }) },
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constantFrom("put" as const, "put" as const, "link" as const),
      save: index,
      file: index,
      content: index,
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("remove" as const), save: index, file: index }) },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constantFrom("commit" as const, "commit" as const, "abort" as const),
      save: index,
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("delete" as const), name: index }) },
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant("wait" as const), seconds: fc.constantFrom(10, 301, 1001) }),
  },
  { weight: 1, arbitrary: fc.constant({ type: "restart" as const }) },
);

interface OpenSave {
  readonly path: string;
  readonly name: string;
  readonly expires: number;
  readonly files: Map<string, number>;
  /** Names that were taken out: asking again, as one whose answer was lost does, is answered as the first time. */
  readonly removed: Set<string>;
}

/** The service beside a model of it that is a few maps. */
class World {
  readonly directory: string;
  readonly errors: unknown[] = [];
  readonly saves: OpenSave[] = [];
  readonly committed: Map<string, ReadonlyMap<string, number>> = new Map();
  now = 1_800_000_000_000;
  fetch: (request: Request) => Response | Promise<Response>;

  constructor(directory: string) {
    this.directory = directory;
    this.fetch = this.start();
  }

  start(): (request: Request) => Response | Promise<Response> {
    return createCheckpointApp({
      directory: this.directory,
      proveCommits: false,
      now: () => this.now,
      limits: { saveSeconds: SAVE_SECONDS, graceSeconds: GRACE_SECONDS, savesPerRun: 1000 },
      onError: (error) => void this.errors.push(error),
    }).fetch;
  }

  async ask(
    method: string,
    path: string,
    body?: Uint8Array<ArrayBuffer> | object,
    headers = {},
  ): Promise<Response> {
    const bytes = body instanceof Uint8Array || body === undefined ? (body ?? null) : JSON.stringify(body);
    const typed = { "content-type": "application/json", ...headers };
    return this.fetch(new Request(`http://localhost${path}`, { method, body: bytes, headers: typed }));
  }

  /** The save that an index means, if it is open. */
  save(i: number): OpenSave | undefined {
    return this.saves.at(i % Math.max(1, this.saves.length));
  }

  async step(op: Op): Promise<void> {
    const file = "file" in op ? FILES[op.file % FILES.length]! : "";
    const save = "save" in op ? this.save(op.save) : undefined;
    if ("save" in op && save === undefined) return;
    const live = save !== undefined && save.expires > this.now;
    switch (op.type) {
      case "begin": {
        const name = NAMES[op.name % NAMES.length]!;
        const answer = await this.ask("POST", "/v1/runs/r/saves", { name });
        expect(answer.status).toBe(this.committed.has(name) ? 409 : 201);
        if (answer.status !== 201) return;
        const expires = this.now + SAVE_SECONDS * 1000;
        this.saves.push({
          path: answer.headers.get("location")!,
          name,
          expires,
          files: new Map(),
          removed: new Set(),
        });
        return;
      }
      case "put": {
        const content = CONTENTS[op.content % CONTENTS.length]!;
        const begun = await this.ask("POST", `${save!.path}/uploads?file=${file}`);
        expect(begun.status).toBe(!live ? 410 : save!.files.has(file) ? 409 : 201);
        if (begun.status !== 201) return;
        const headers = {
          "content-type": "application/partial-upload",
          "upload-offset": "0",
          "upload-complete": "?1",
        };
        expect((await this.ask("PATCH", begun.headers.get("location")!, content, headers)).status).toBe(201);
        save!.files.set(file, op.content % CONTENTS.length);
        save!.removed.delete(file);
        return;
      }
      case "link": {
        const content = op.content % CONTENTS.length;
        const answer = await this.ask("POST", `${save!.path}/files`, {
          file,
          sha256: sha256(CONTENTS[content]!),
        });
        if (answer.status === 201) {
          save!.files.set(file, content);
          save!.removed.delete(file);
        } else expect([409, 410, 422]).toContain(answer.status);
        // What is part of a checkpoint or of a save can always be taken up.
        const referenced = [
          ...this.committed.values(),
          ...this.saves.filter((one) => one.expires > this.now).map((one) => one.files),
        ];
        if (answer.status === 422)
          expect(referenced.some((files) => [...files.values()].includes(content))).toBe(false);
        return;
      }
      case "remove": {
        const answer = await this.ask("DELETE", `${save!.path}/files/${file}`);
        expect(answer.status).toBe(
          !live ? 410 : save!.files.has(file) || save!.removed.has(file) ? 204 : 404,
        );
        if (live && save!.files.delete(file)) save!.removed.add(file);
        return;
      }
      case "commit": {
        const answer = await this.ask("POST", `${save!.path}/commit`);
        const whole = save!.files.has("manifest.msgpack");
        expect(answer.status).toBe(!live ? 410 : !whole ? 422 : this.committed.has(save!.name) ? 409 : 200);
        if (answer.status !== 200) return;
        this.committed.set(save!.name, save!.files);
        this.saves.splice(this.saves.indexOf(save!), 1);
        return;
      }
      case "abort": {
        expect((await this.ask("POST", `${save!.path}/abort`)).status).toBe(live ? 204 : 410);
        if (live) this.saves.splice(this.saves.indexOf(save!), 1);
        return;
      }
      case "delete": {
        const name = NAMES[op.name % NAMES.length]!;
        const answer = await this.ask("DELETE", `/v1/runs/r/checkpoints/${name}`);
        expect(answer.status).toBe(this.committed.delete(name) ? 204 : 404);
        return;
      }
      case "wait":
        this.now += op.seconds * 1000;
        await this.ask("GET", "/healthz");
        // Long gone ones are forgotten by the service too.
        for (const one of [...this.saves])
          if (one.expires <= this.now) this.saves.splice(this.saves.indexOf(one), 1);
        return;
      case "restart":
        this.fetch = this.start();
    }
  }

  /** Everything that was committed, and everything in open saves, is there byte for byte; nothing else is listed. */
  async check(): Promise<void> {
    const listed = await (await this.ask("GET", "/v1/runs/r/checkpoints?names=only")).json();
    expect(listed).toEqual({ checkpoints: [...this.committed.keys()].sort().map((name) => ({ name })) });
    const places = [...this.committed].map(
      ([name, files]) => [`/v1/runs/r/checkpoints/${name}`, files] as const,
    );
    for (const [path, files] of [...places, ...this.saves.map((save) => [save.path, save.files] as const)]) {
      for (const [file, content] of files) {
        const answer = await this.ask("GET", `${path}/files/${file}`);
        expect([path, file, answer.status]).toEqual([path, file, 200]);
        expect(await answer.bytes()).toEqual(CONTENTS[content]!);
      }
    }
    expect(this.errors).toEqual([]);
  }
}

test("no order of saves, links, commits, deletions, waits and restarts loses a byte that something refers to", async () => {
  let count = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(op, { minLength: 10, maxLength: 40 }), async (ops) => {
      const world = new World(join(folder, `world-${count++}`));
      await world.ask("POST", "/v1/runs/r/saves", { name: "first" });
      for (const op of ops) await world.step(op);
      await world.check();
    }),
    { numRuns: 60 },
  );
}, 60_000);

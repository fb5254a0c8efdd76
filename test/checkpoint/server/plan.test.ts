import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { decodeManifest } from "../../../checkpoint/manifest.ts";
import { planReads, type ReadPlan } from "../../../checkpoint/server/read-plan.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import { memoryStore } from "../../../checkpoint/stores/memory.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { generator, randomLayout, tensorsArbitrary } from "../layouts.ts";
import { runRanks } from "../ranks.ts";
import { cutBox, dimZero, type FullTensor, type Layout, patternTensor, shardedState } from "../states.ts";
import { type Api, apiOf, expectProblem } from "./api.ts";
import { type RunningService, SERVICES } from "./service.ts";

/** A box of a shape, decided by `random`; some are empty. */
function someBox(shape: readonly number[], random: (below: number) => number): Box {
  const offsets = shape.map((extent) => random(extent + 1));
  return { offsets, sizes: shape.map((extent, d) => random(extent - offsets[d]! + 1)) };
}

type Part = ReadPlan["reads"][number]["parts"][number];

/** Follows a part's strides, run by run: what a client without this library would write. */
function place(part: Part, begin: number, bytes: Uint8Array, target: Uint8Array): number {
  const visit = (axis: number, source: number, to: number): number => {
    if (axis === part.counts.length) {
      target.set(bytes.subarray(source - begin, source - begin + part.length), to);
      return part.length;
    }
    let moved = 0;
    for (let i = 0; i < part.counts[axis]!; i++) {
      moved += visit(axis + 1, source + i * part.sourceStrides[axis]!, to + i * part.targetStrides[axis]!);
    }
    return moved;
  };
  return visit(0, part.source, part.target);
}

/** Does the reads of a plan. */
async function follow(
  plan: ReadPlan,
  read: (sha256: string, begin: number, end: number, file: string) => Promise<Uint8Array>,
): Promise<readonly Uint8Array[]> {
  const boxes = plan.boxes.map(({ bytes }) => new Uint8Array(bytes));
  const moved = plan.boxes.map(() => 0);
  for (const { file, sha256, begin, end, parts } of plan.reads) {
    const bytes = await read(sha256, begin, end, file);
    for (const part of parts) moved[part.box]! += place(part, begin, bytes, boxes[part.box]!);
  }
  expect(moved).toEqual(plan.boxes.map(({ bytes }) => bytes));
  return boxes;
}

const wantedOf = (part: Part): number => part.counts.reduce((product, count) => product * count, part.length);

describe("a plan of reads", () => {
  test("names each wanted byte once, with the checksums of its blocks, and little that nobody wants", async () => {
    await fc.assert(
      fc.asyncProperty(
        tensorsArbitrary,
        fc.integer(),
        fc.constantFrom(0, 0.3, 1, 10, 1e6),
        async (tensors, seed, maxOverRead) => {
          const store = memoryStore("plan");
          const checkpointer = nativeCheckpointer(store);
          const layout = randomLayout(2, seed);
          await runRanks(2, (collective) =>
            checkpointer.save(shardedState(tensors, layout, collective.rank), 1, collective),
          );
          const [name = ""] = await store.list();
          const whole = async (file: string): Promise<Uint8Array> =>
            store.read(name, file, 0, await store.size(name, file));
          const manifest = decodeManifest(await whole("manifest.msgpack"));
          const random = generator(seed);
          const wanted = Array.from({ length: 1 + random(6) }, () => {
            const tensor = tensors[random(tensors.length)]!;
            return { tensor, name: tensor.name, ...someBox(tensor.shape, random) };
          });
          const plan = planReads(manifest, wanted, maxOverRead);
          const boxes = await follow(plan, (_, begin, end, file) => store.read(name, file, begin, end));
          for (const [i, { tensor, offsets, sizes }] of wanted.entries()) {
            expect(boxes[i]).toEqual(new Uint8Array(cutBox(tensor, { offsets, sizes })));
          }
          for (const { file, begin, end, crc32: crcs, parts } of plan.reads) {
            const share = parts.reduce((sum, part) => sum + wantedOf(part), 0);
            expect(end - begin).toBeLessThanOrEqual((1 + maxOverRead) * share);
            const { block, length } = plan.files.find((one) => one.file === file)!;
            const from = Math.floor(begin / block) * block;
            const bytes = (await whole(file)).subarray(
              from,
              Math.min(Math.ceil(end / block) * block, length),
            );
            expect(crcs.map((_, i) => crc32(bytes.subarray(i * block, (i + 1) * block)))).toEqual([...crcs]);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test("cuts what lies far apart, joins what lies together", () => {
    const [rows, columns] = [100, 50];
    const bytes = rows * columns * 4;
    const chunk = { offsets: [0, 0], sizes: [rows, columns], file: "f", begin: 64, end: 64 + bytes };
    const digest = { length: 64 + bytes, sha256: "0".repeat(64), crc32: [7], block: 1024 * 1024 };
    const manifest = {
      ...{ step: 1, worldSize: 1, createdAt: 0, values: {}, rankValues: [{}] },
      tensors: [{ name: "w", dtype: "float32" as const, shape: [rows, columns], chunks: [chunk] }],
      files: [{ name: "f", ...digest }],
    };
    const column = (at: number) => ({ name: "w", offsets: [0, at], sizes: [rows, 1] });
    expect(planReads(manifest, [column(3)], 0).reads.length).toBe(rows);
    expect(planReads(manifest, [column(3)], 49).reads).toEqual([
      {
        ...{ file: "f", sha256: digest.sha256, begin: 64 + 12, end: 64 + bytes - 4 * 46, crc32: [7] },
        parts: [
          {
            ...{ box: 0, length: 4, source: 64 + 12, target: 0 },
            ...{ counts: [rows], sourceStrides: [4 * columns], targetStrides: [4] },
          },
        ],
      },
    ]);
    const all = Array.from({ length: columns }, (_, at) => column(at));
    const joined = planReads(manifest, all, 0).reads;
    expect(joined.map(({ begin, end }) => [begin, end])).toEqual([[64, 64 + bytes]]);
    expect(joined[0]!.parts.length).toBe(rows * columns);
  });
});

const TENSORS: readonly FullTensor[] = [
  patternTensor("model.wte.weight", "float32", [701, 300]),
  patternTensor("model.h.weight", "bfloat16", [33, 5, 7]),
  patternTensor("model.steps", "int64", []),
  patternTensor("model.nothing", "float32", [0, 4]),
];

/** Columns instead of rows: chunks that interleave. */
const byColumns: Layout = (tensor, rank) => {
  const [rows = 0, columns = 0, ...rest] = tensor.shape;
  if (tensor.shape.length < 2) return dimZero(3)(tensor, rank);
  const width = Math.ceil(columns / 3);
  const begin = Math.min(rank * width, columns);
  const sizes = [rows, Math.min(width, columns - begin), ...rest];
  return [{ offsets: [0, begin, ...rest.map(() => 0)], sizes }];
};

describe.each(SERVICES)("%s", (_, start) => {
  let service: RunningService;
  let api: Api;
  beforeAll(async () => {
    service = await start();
    api = apiOf(service.url);
    for (const [run, layout] of [
      ["rows", dimZero(3)],
      ["columns", byColumns],
    ] as const) {
      const checkpointer = nativeCheckpointer(httpStore(`${service.url}/runs/${run}`), { now: () => 0 });
      await runRanks(3, (collective) =>
        checkpointer.save(shardedState(TENSORS, layout, collective.rank), 1, collective),
      );
    }
  }, 30_000);
  afterAll(async () => {
    expect(service.errors).toEqual([]);
    await service.close();
  });

  const path = (run: string): string => `/v1/runs/${run}/checkpoints/step-00000001`;

  test("ranges of blobs, placed as a plan says, are what the tensor route sends", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom("rows", "columns"),
        fc.constantFrom(undefined, 0.5, 1000),
        fc.integer(),
        async (run, maxOverRead, seed) => {
          const random = generator(seed);
          const tensors = Array.from({ length: 3 }, () => {
            const { name, shape } = TENSORS[random(TENSORS.length)]!;
            return { name, ...someBox(shape, random) };
          });
          const answer = await api("POST", `${path(run)}/plan`, { json: { tensors, maxOverRead } });
          expect(answer.status).toBe(200);
          const plan = answer.json as unknown as ReadPlan;
          const blobs = new Map<string, Uint8Array>();
          const boxes = await follow(plan, async (sha256, begin, end) => {
            const url = `/v1/runs/${run}/blobs/${sha256}`;
            if (plan.reads.length <= 20) {
              const ranged = await api("GET", url, { headers: { range: `bytes=${begin}-${end - 1}` } });
              expect(ranged.status).toBe(206);
              return ranged.bytes;
            }
            // Hundreds of requests would show no more than one.
            if (!blobs.has(sha256)) blobs.set(sha256, (await api("GET", url)).bytes);
            return blobs.get(sha256)!.subarray(begin, end);
          });
          for (const [i, { name, offsets, sizes }] of tensors.entries()) {
            const url = `${path(run)}/tensors/${name}?offsets=${offsets}&sizes=${sizes}`;
            expect(Buffer.compare(boxes[i]!, (await api("GET", url)).bytes)).toBe(0);
          }
        },
      ),
      { numRuns: 15 },
    );
  }, 30_000);

  test("a tensor without a box is wanted whole, and the plan says of what", async () => {
    const wanted = { json: { tensors: TENSORS.map(({ name }) => ({ name })) } };
    const { json } = await api("POST", `${path("rows")}/plan`, wanted);
    expect(json.manifest).toBe((await api("GET", path("rows"))).json.manifest as string);
    expect(json.boxes).toEqual(
      TENSORS.map(({ name, dtype, shape, bytes }) => {
        return { name, dtype, offsets: shape.map(() => 0), sizes: shape, bytes: bytes.length };
      }),
    );
  });

  test("unknown tensors, boxes outside a shape and plans without end are refused", async () => {
    const name = "model.wte.weight";
    const plan = (json: unknown) => api("POST", `${path("rows")}/plan`, { json });
    const unknown = await plan({ tensors: [{ name }, { name: "model.other" }] });
    expectProblem(unknown, 422, "invalid");
    expect(unknown.json.index).toBe(1);
    const outside = await plan({ tensors: [{ name, offsets: [700, 0], sizes: [2, 1] }] });
    expectProblem(outside, 422, "invalid");
    expect(outside.json).toMatchObject({ shape: [701, 300], box: { offsets: [700, 0], sizes: [2, 1] } });
    const columns = Array.from({ length: 100 }, (_, at) => ({ name, offsets: [0, at], sizes: [701, 1] }));
    const long = await plan({ tensors: columns, maxOverRead: 0 });
    expectProblem(long, 422, "invalid");
    expect(long.json.limit).toBe(50_000);
    expect((await plan({ tensors: columns, maxOverRead: 1000 })).status).toBe(200);
    for (const body of [
      {},
      { tensors: [] },
      { tensors: [{ name, offsets: [0, 0] }] },
      { tensors: [{ name, offsets: [0], sizes: [1] }] },
      { tensors: [{ name, offsets: [-1, 0], sizes: [1, 1] }] },
      { tensors: [{ name, offsets: [0, 0], sizes: [1.5, 1] }] },
      { tensors: [{ name, offsets: [0, 2 ** 53], sizes: [1, 1] }] },
      { tensors: [{ name }], maxOverRead: -1 },
      { tensors: [{ name }], extra: 1 },
      { tensors: Array.from({ length: 10_001 }, () => ({ name })) },
    ]) {
      expectProblem(await plan(body), 422, "invalid");
    }
    const absent = { json: { tensors: [{ name }] } };
    expectProblem(await api("POST", "/v1/runs/rows/checkpoints/other/plan", absent), 404, "not-found");
  });
});

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { flatBoxes } from "../../../checkpoint/server/tensor-bytes.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import { run as runCommand } from "../../support/command.ts";
import { runRanks } from "../ranks.ts";
import { cutBox, dimZero, type FullTensor, type Layout, patternTensor, shardedState } from "../states.ts";
import { type Api, apiOf, expectProblem } from "./api.ts";
import { type RunningService, SERVICES } from "./service.ts";

const TENSORS: readonly FullTensor[] = [
  patternTensor("model.wte.weight", "float32", [701, 300]),
  patternTensor("model.h.0.bias", "bfloat16", [7]),
  patternTensor("model.h.0.weight", "float16", [33, 5, 7]),
  patternTensor("model.steps", "int64", []),
  patternTensor("model.nothing", "float32", [0, 4]),
  patternTensor("model.a/b c?d#é", "uint8", [3]),
  patternTensor("optim.state.wte.weight.exp_avg", "float32", [701, 300]),
];

/** Columns instead of rows, where a tensor has any: chunks that interleave in the export. */
const byColumns: Layout = (tensor, rank) => {
  const { shape } = tensor;
  if (shape.length < 2) return dimZero(3)(tensor, rank);
  const width = Math.ceil(shape[1]! / 3);
  const begin = Math.min(rank * width, shape[1]!);
  const size = Math.min(width, shape[1]! - begin);
  const rest = shape.slice(2);
  return [{ offsets: [0, begin, ...rest.map(() => 0)], sizes: [shape[0]!, size, ...rest] }];
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
  });
  afterAll(async () => {
    expect(service.errors).toEqual([]);
    await service.close();
  });

  const path = (run: string): string => `/v1/runs/${run}/checkpoints/step-00000001`;

  describe("content", () => {
    test("ranges are those of RFC 9110, whatever the content is made of", async () => {
      const url = `${path("rows")}/files/rank-00000.safetensors`;
      const whole = await api("GET", url);
      const length = whole.bytes.length;
      const etag = whole.headers.get("etag")!;
      const range = (value: string, headers: Record<string, string> = {}) =>
        api("GET", url, { headers: { range: value, ...headers } });
      for (const [value, begin, end] of [
        ["bytes=0-0", 0, 1],
        ["bytes=5-9", 5, 10],
        ["bytes=10-", 10, length],
        ["bytes=-7", length - 7, length],
        [`bytes=-${length + 5}`, 0, length],
        [`bytes=3-${length + 100}`, 3, length],
      ] as const) {
        const answer = await range(value);
        expect([value, answer.status]).toEqual([value, 206]);
        expect(answer.headers.get("content-range")).toBe(`bytes ${begin}-${end - 1}/${length}`);
        expect(answer.bytes).toEqual(whole.bytes.slice(begin, end));
      }
      for (const value of ["bytes=0-1,3-4", "bytes=9-5", "items=0-1", "bytes=-", "bytes=a-b", "bytes"]) {
        expect((await range(value)).bytes).toEqual(whole.bytes);
      }
      for (const value of [`bytes=${length}-`, `bytes=${length + 1}-${length + 2}`]) {
        const answer = await range(value);
        expectProblem(answer, 416, "range");
        expect(answer.headers.get("content-range")).toBe(`bytes */${length}`);
      }
      expect((await range("bytes=0-0", { "if-range": etag })).status).toBe(206);
      expect((await range("bytes=0-0", { "if-range": '"other"' })).status).toBe(200);
      expect((await range("bytes=0-0", { "if-range": "Sun, 22 Nov 2026 00:00:00 GMT" })).status).toBe(200);
    });

    test("entity tags are strong: equal content is not sent again, and a wrong expectation fails", async () => {
      const urls = [
        `${path("rows")}`,
        `${path("rows")}/manifest`,
        `${path("rows")}/files/rank-00001.safetensors`,
        `${path("rows")}/tensors/model.steps`,
        `${path("rows")}/export.safetensors`,
        `${path("rows")}/export/model.safetensors.index.json`,
      ];
      const tags = new Set<string>();
      for (const url of urls) {
        const { headers } = await api("GET", url);
        const etag = headers.get("etag")!;
        tags.add(etag);
        expect(etag).toMatch(/^"[^"]+"$/);
        for (const value of [etag, `"x", ${etag}`, "*", `W/${etag}`]) {
          const unchanged = await api("GET", url, { headers: { "if-none-match": value } });
          expect([url, unchanged.status, unchanged.bytes.length]).toEqual([url, 304, 0]);
        }
        expect((await api("GET", url, { headers: { "if-none-match": '"x"' } })).status).toBe(200);
        expectProblem(await api("GET", url, { headers: { "if-match": '"x"' } }), 412, "precondition");
      }
      expect(tags.size).toBe(urls.length);
    });

    test("HEAD says of everything what GET would, without its content", async () => {
      for (const url of [
        "/files/rank-00000.safetensors",
        "/export.safetensors",
        "/manifest",
        "/tensors/model.wte.weight",
      ]) {
        const get = await api("GET", `${path("columns")}${url}`);
        const head = await api("HEAD", `${path("columns")}${url}`);
        expect([head.status, head.bytes.length]).toEqual([200, 0]);
        expect(head.headers.get("content-length")).toBe(String(get.bytes.length));
        expect(head.headers.get("etag")).toBe(get.headers.get("etag")!);
      }
    });
  });

  describe("tensors", () => {
    test("every tensor and any box of it come as they were, whatever the layout", async () => {
      for (const run of ["rows", "columns"]) {
        for (const tensor of TENSORS) {
          const answer = await api("GET", `${path(run)}/tensors/${encodeURIComponent(tensor.name)}`);
          expect([answer.status, answer.headers.get("tensor-dtype")]).toEqual([200, tensor.dtype]);
          expect(answer.bytes).toEqual(new Uint8Array(tensor.bytes));
        }
        for (const box of [
          { offsets: [233, 99], sizes: [2, 3] },
          { offsets: [0, 0], sizes: [701, 1] },
          { offsets: [700, 0], sizes: [1, 300] },
          { offsets: [5, 5], sizes: [0, 3] },
        ]) {
          const url = `${path(run)}/tensors/model.wte.weight?offsets=${box.offsets}&sizes=${box.sizes}`;
          expect((await api("GET", url)).bytes).toEqual(new Uint8Array(cutBox(TENSORS[0]!, box)));
        }
      }
      const url = `${path("rows")}/tensors/model.wte.weight`;
      for (const query of [
        "offsets=700,0&sizes=2,1",
        "offsets=0&sizes=1",
        "offsets=0,301&sizes=1,1",
        "offsets=0,0,0&sizes=1,1,1",
      ]) {
        expectProblem(await api("GET", `${url}?${query}`), 422, "invalid");
      }
      for (const query of [
        "offsets=0,0",
        "offsets=-1,0&sizes=1,1",
        "offsets=0,0&sizes=9007199254740993,1",
        "offsets=a&sizes=b",
      ]) {
        expectProblem(await api("GET", `${url}?${query}`), 400, "malformed");
      }
    });

    test("flat ranges become boxes in row-major order", () => {
      fc.assert(
        fc.property(
          fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }),
          fc.nat(),
          fc.nat(),
          (sizes, a, b) => {
            const total = sizes.reduce((x, y) => x * y, 1);
            const [begin, end] = [a % (total + 1), b % (total + 1)].sort((x, y) => x - y) as [number, number];
            const flat: number[] = [];
            for (const box of flatBoxes(sizes, begin, end)) {
              const count = box.sizes.reduce((x, y) => x * y, 1);
              for (let i = 0; i < count; i++) {
                let rest = i;
                let index = 0;
                let stride = 1;
                for (let d = sizes.length - 1; d >= 0; d--) {
                  index += (box.offsets[d]! + (rest % box.sizes[d]!)) * stride;
                  rest = Math.floor(rest / box.sizes[d]!);
                  stride *= sizes[d]!;
                }
                flat.push(index);
              }
            }
            expect(flat).toEqual(Array.from({ length: end - begin }, (_, i) => begin + i));
          },
        ),
      );
    });
  });

  describe("exports", () => {
    test("are byte for byte what merge-weights makes of the directory, whole and cut", async () => {
      for (const run of ["rows", "columns"]) {
        for (const shard of [undefined, 10_000]) {
          const folder = join(service.directory, "..", `merged-${run}-${shard ?? "whole"}`);
          await mkdir(folder);
          const cut = shard === undefined ? [] : ["--max-shard-size", String(shard)];
          const source = join(service.directory, run);
          const merge = await runCommand([
            "merge-weights",
            source,
            join(folder, "model.safetensors"),
            ...cut,
          ]);
          expect([merge.code, merge.stderr]).toEqual([0, ""]);
          const files = [...new Bun.Glob("*").scanSync(folder)].sort();
          expect(files.length).toBe(shard === undefined ? 1 : 3);
          const query = shard === undefined ? "" : `?maxShardSize=${shard}`;
          for (const file of files) {
            const { bytes } = await api("GET", `${path(run)}/export/${file}${query}`);
            expect(Buffer.compare(bytes, await Bun.file(join(folder, file)).bytes())).toBe(0);
          }
          const whole = await api("GET", `${path(run)}/export.safetensors`);
          if (shard === undefined) {
            expect(Buffer.compare(whole.bytes, await Bun.file(join(folder, files[0]!)).bytes())).toBe(0);
          }
        }
      }
    }, 30_000);

    test("any range of one is that part of the whole", async () => {
      for (const run of ["rows", "columns"]) {
        const url = `${path(run)}/export.safetensors`;
        const { bytes } = await api("GET", url);
        const length = bytes.length;
        for (const [begin, end] of [
          [0, 9],
          [0, length],
          [200, 5000],
          [length - 3, length],
          [333_333, 333_334],
          [99_999, 700_001],
        ] as const) {
          const part = await api("GET", url, { headers: { range: `bytes=${begin}-${end - 1}` } });
          expect(part.status).toBe(206);
          expect(Buffer.compare(part.bytes, bytes.subarray(begin, end))).toBe(0);
        }
      }
    });

    test("a prefix chooses other tensors; none to export is told", async () => {
      const optim = await api("GET", `${path("rows")}/export.safetensors?prefix=optim.state.`);
      expect(new TextDecoder().decode(optim.bytes.subarray(8, 200))).toContain('"wte.weight.exp_avg"');
      expectProblem(
        await api("GET", `${path("rows")}/export.safetensors?prefix=other.`),
        422,
        "unexportable",
      );
      expectProblem(
        await api("GET", `${path("rows")}/export/model-00001-of-00009.safetensors`),
        404,
        "not-found",
      );
    });

    test("damage under a stream cuts the connection; it never looks complete", async () => {
      const big = patternTensor("model.big", "float32", [1500, 1000]);
      const checkpointer = nativeCheckpointer(httpStore(`${service.url}/runs/damaged`));
      await runRanks(1, (collective) => checkpointer.save(shardedState([big], dimZero(1), 0), 1, collective));
      const file = join(service.directory, "damaged", "step-00000001", "rank-00000.safetensors");
      const bytes = await Bun.file(file).bytes();
      bytes[bytes.length - 5]! ^= 4;
      await Bun.write(file, bytes);
      const error = await api("GET", `${path("damaged")}/export.safetensors`).catch(
        (error: unknown) => error,
      );
      expect(error).toBeInstanceOf(Error);
      // What lies before the damage is still to be had.
      const part = await api("GET", `${path("damaged")}/tensors/model.big?offsets=0,0&sizes=100,1000`);
      expect(part.bytes).toEqual(new Uint8Array(big.bytes.slice(0, 400_000)));
    });
  });
});

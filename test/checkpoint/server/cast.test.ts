import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { castElements } from "../../../checkpoint/cast.ts";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { parseHeader, parseHeaderLength } from "../../../checkpoint/formats/safetensors/header.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import { bytesOf, newHostArray, STORED_DTYPES, type StoredDType } from "../../../core/contracts/dtype.ts";
import { runRanks } from "../ranks.ts";
import { cutBox, dimZero, type FullTensor, patternTensor, shardedState } from "../states.ts";
import { type Api, apiOf, expectProblem } from "./api.ts";
import { type RunningService, SERVICES } from "./service.ts";

/** The first is of more than one window. */
const TENSORS: readonly FullTensor[] = [
  patternTensor("model.wte.weight", "float32", [1201, 1000]),
  patternTensor("model.h.0.bias", "bfloat16", [7]),
  patternTensor("model.h.0.weight", "float16", [33, 5, 7]),
  patternTensor("model.scale", "float64", []),
  patternTensor("model.steps", "int64", [3]),
  patternTensor("model.mask", "bool", [5]),
  patternTensor("model.nothing", "float32", [0, 4]),
];
const FLOATS: readonly StoredDType[] = ["float64", "float32", "float16", "bfloat16"];

/** All bytes of a tensor in another dtype, converted at once. */
function converted(tensor: Pick<FullTensor, "dtype" | "bytes">, dtype: StoredDType): Uint8Array {
  if (tensor.dtype === dtype) return new Uint8Array(tensor.bytes);
  const host = newHostArray(tensor.dtype, tensor.bytes.length / STORED_DTYPES[tensor.dtype].bytes);
  bytesOf(host).set(tensor.bytes);
  return new Uint8Array(bytesOf(castElements(host, tensor.dtype, dtype)));
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describe.each(SERVICES)("%s", (_, start) => {
  let service: RunningService;
  let api: Api;
  beforeAll(async () => {
    service = await start();
    api = apiOf(service.url);
    const save = async (run: string, tensors: readonly FullTensor[]): Promise<void> => {
      const checkpointer = nativeCheckpointer(httpStore(`${service.url}/runs/${run}`), { now: () => 0 });
      await runRanks(3, (collective) =>
        checkpointer.save(shardedState(tensors, dimZero(3), collective.rank), 1, collective),
      );
    };
    await save("floats", TENSORS);
    await save("eights", [patternTensor("model.w", "float8_e4m3fn", [9])]);
  }, 30_000);
  afterAll(async () => {
    expect(service.errors).toEqual([]);
    await service.close();
  });

  const path = "/v1/runs/floats/checkpoints/step-00000001";

  test("a tensor comes in any floating dtype, whole, as a box and in ranges, under tags of their own", async () => {
    const tags = new Set<string | null>();
    for (const tensor of TENSORS.filter(({ dtype }) => FLOATS.includes(dtype))) {
      for (const dtype of FLOATS) {
        const url = `${path}/tensors/${tensor.name}?dtype=${dtype}`;
        const answer = await api("GET", url);
        expect([answer.status, answer.headers.get("tensor-dtype")]).toEqual([200, dtype]);
        expect(same(answer.bytes, converted(tensor, dtype))).toBe(true);
        tags.add(answer.headers.get("etag"));
        const etag = { headers: { "if-none-match": answer.headers.get("etag")! } };
        expect((await api("GET", url, etag)).status).toBe(304);
      }
    }
    expect(tags.size).toBe(5 * FLOATS.length);
    const [big] = TENSORS;
    const box = { offsets: [400, 990], sizes: [2, 5] };
    const boxUrl = `${path}/tensors/${big!.name}?offsets=${box.offsets}&sizes=${box.sizes}&dtype=float16`;
    const cut = { dtype: "float32", bytes: cutBox(big!, box) } as const;
    expect((await api("GET", boxUrl)).bytes).toEqual(new Uint8Array(converted(cut, "float16")));
    // Ranges that begin and end within elements, at the windows' edges and far from them.
    const whole = converted(big!, "bfloat16");
    for (const [begin, end] of [
      [0, 1],
      [1, 2],
      [3, 1001],
      [2_097_151, 2_097_155],
      [1_999_999, 2_402_000],
    ] as const) {
      const range = { headers: { range: `bytes=${begin}-${end - 1}` } };
      const part = await api("GET", `${path}/tensors/${big!.name}?dtype=bfloat16`, range);
      expect([part.status, part.headers.get("content-range")]).toEqual([
        206,
        `bytes ${begin}-${end - 1}/${whole.length}`,
      ]);
      expect(same(part.bytes, whole.subarray(begin, end))).toBe(true);
    }
  });

  test("a dtype that cannot be is refused: an unknown one, and one without a conversion", async () => {
    const of = (name: string, dtype: string) => api("GET", `${path}/tensors/${name}?dtype=${dtype}`);
    for (const [name, dtype] of [
      ["model.wte.weight", "int64"],
      ["model.wte.weight", "bfloat17"],
      ["model.wte.weight", "float8_e4m3fn"],
      ["model.steps", "float32"],
      ["model.mask", "uint8"],
    ] as const) {
      expectProblem(await of(name, dtype), 422, "invalid");
    }
    expect((await of("model.steps", "int64")).bytes).toEqual(new Uint8Array(TENSORS[4]!.bytes));
    expectProblem(await of("model.wte.weight", "../x"), 400, "malformed");
    for (const dtype of ["int64", "bool", "constructor", "float8_e4m3fn"]) {
      expectProblem(await api("GET", `${path}/export.safetensors?dtype=${dtype}`), 422, "invalid");
    }
    const eights = "/v1/runs/eights/checkpoints/step-00000001/export.safetensors";
    expectProblem(await api("GET", `${eights}?dtype=bfloat16`), 422, "invalid");
    expect((await api("GET", eights)).status).toBe(200);
  });

  test("an export in a dtype has its floating tensors in it and all others as they are, in one file or several", async () => {
    const plain = await api("GET", `${path}/export.safetensors`);
    for (const dtype of FLOATS) {
      const whole = await api("GET", `${path}/export.safetensors?dtype=${dtype}`);
      const head = await api("HEAD", `${path}/export.safetensors?dtype=${dtype}`);
      expect(head.headers.get("content-length")).toBe(String(whole.bytes.length));
      expect(whole.headers.get("etag")).not.toBe(plain.headers.get("etag"));
      const cut = `dtype=${dtype}&maxShardSize=1000000`;
      const index = await api("GET", `${path}/export/model.safetensors.index.json?${cut}`);
      const places = index.json.weight_map as Record<string, string>;
      const { total_size } = index.json.metadata as { total_size: number };
      let total = 0;
      for (const tensor of TENSORS) {
        const name = tensor.name.slice("model.".length);
        const as = FLOATS.includes(tensor.dtype) ? dtype : tensor.dtype;
        const due = converted(tensor, as);
        total += due.length;
        const shard = await api("GET", `${path}/export/${places[name]}?${cut}`);
        for (const { bytes } of [whole, shard]) {
          const found = tensorIn(bytes, name);
          expect(found.dtype).toBe(STORED_DTYPES[as].safetensors);
          expect(same(found.bytes, due)).toBe(true);
        }
      }
      expect(total_size).toBe(total);
      expect(new Set(Object.values(places)).size).toBeGreaterThan(1);
      const length = whole.bytes.length;
      for (const [begin, end] of [
        [3, 777],
        [length - 1_234_567, length - 3],
      ] as const) {
        const range = {
          headers: { range: `bytes=${begin}-${end - 1}`, "if-range": whole.headers.get("etag")! },
        };
        const part = await api("GET", `${path}/export.safetensors?dtype=${dtype}`, range);
        expect(part.status).toBe(206);
        expect(same(part.bytes, whole.bytes.subarray(begin, end))).toBe(true);
      }
    }
  });
});

/** A tensor of a safetensors file. */
function tensorIn(bytes: Uint8Array, name: string): { readonly dtype: string; readonly bytes: Uint8Array } {
  const length = parseHeaderLength(bytes.subarray(0, 8), bytes.length);
  const { tensors, dataBegin } = parseHeader(bytes.subarray(8, 8 + length), bytes.length);
  const { dtype, begin, end } = tensors.get(name)!;
  return { dtype, bytes: bytes.subarray(dataBegin + begin, dataBegin + end) };
}

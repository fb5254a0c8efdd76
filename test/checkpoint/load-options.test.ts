import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { castElements, isCastable } from "../../checkpoint/cast.ts";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import type { LoadOptions } from "../../core/contracts/checkpointer.ts";
import { bytesOf, hostArray, newHostArray, type StoredDType } from "../../core/contracts/dtype.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { runRanks } from "./ranks.ts";
import { cutBox, dimZero, emptyState, type FullTensor, patternTensor, shardedState } from "./states.ts";

const SAVED = [patternTensor("model.a", "float32", [5, 3]), patternTensor("model.b", "int32", [4])];

async function load(wanted: readonly FullTensor[], options: LoadOptions) {
  const store = memoryStore("memory:load-options");
  const checkpointer = nativeCheckpointer(store);
  await runRanks(2, (collective) =>
    checkpointer.save(shardedState(SAVED, dimZero(2), collective.rank), 1, collective),
  );
  const [result] = await runRanks(1, async (collective) => {
    const { state, filled } = emptyState(wanted, dimZero(1), 0);
    const { differences } = await checkpointer.load(state, "latest", collective, options);
    return { differences, filled };
  });
  return result!;
}

describe("what a load must find", () => {
  const [a, b] = SAVED;
  const gone = patternTensor("model.c", "float32", [2]);
  const otherShape = patternTensor("model.b", "int32", [5]);
  const otherDType = patternTensor("model.a", "int32", [5, 3]);

  test("is by default every tensor wanted, and what is left over is told", async () => {
    const { differences, filled } = await load([a!], {});
    expect(differences).toEqual({ missing: [], unexpected: ["model.b"], mismatched: [] });
    expect(filled.length).toBe(1);
    await expect(load([a!, gone], {})).rejects.toThrow("tensor model.c: missing");
  });

  test("is exactly what is there, when strict", async () => {
    expect((await load(SAVED, { fit: "strict" })).differences.unexpected).toEqual([]);
    await expect(load([a!, gone], { fit: "strict" })).rejects.toThrow(
      "tensor model.c: missing; tensor model.b: not wanted",
    );
  });

  test("is what fits, when partial: the rest stays as it is and is told", async () => {
    const { differences, filled } = await load([otherDType, gone, otherShape], { fit: "partial" });
    expect(differences).toEqual({
      missing: ["model.c"],
      unexpected: [],
      mismatched: ["model.a", "model.b"],
    });
    expect(filled).toEqual([]);
    const some = await load([a!, gone, b!], { fit: "partial" });
    expect(some.filled.map(({ tensor }) => tensor.name).sort()).toEqual(["model.a", "model.b"]);
  });

  test("may be renamed, and left out", async () => {
    const renamed = { ...a!, name: "module.a" };
    const rename = (name: string) => (name === "other" ? undefined : name.replace("module.", "model."));
    const { differences, filled } = await load([renamed, { ...gone, name: "other" }], { rename });
    expect(differences).toEqual({ missing: [], unexpected: ["model.b"], mismatched: [] });
    expect(filled.map(({ bytes }) => bytes)).toEqual([a!.bytes]);
    await expect(load([{ ...gone, name: "module.c" }], { rename })).rejects.toThrow(
      "tensor module.c, in the checkpoint model.c: missing",
    );
  });

  test("may be two tensors of one name: tied weights load from where one lies", async () => {
    const { filled } = await load([a!, { ...a!, name: "model.tied" }], {
      rename: (name) => (name === "model.tied" ? "model.a" : name),
    });
    expect(filled.length).toBe(2);
    for (const { tensor, box, bytes } of filled) expect(bytes).toEqual(cutBox(tensor, box));
  });
});

describe("another dtype", () => {
  test("is refused unless it is asked for, and never between whole numbers and floats", async () => {
    const half = patternTensor("model.a", "bfloat16", [5, 3]);
    await expect(load([half], {})).rejects.toThrow("tensor model.a: saved as float32, wanted as bfloat16");
    const { filled } = await load([half], { cast: true });
    const source = hostArray("float32", SAVED[0]!.bytes.buffer, 0, 15);
    expect(filled[0]!.bytes).toEqual(bytesOf(castElements(source, "float32", "bfloat16")));
    await expect(load([patternTensor("model.b", "float32", [4])], { cast: true })).rejects.toThrow(
      CheckpointError,
    );
    expect(isCastable("float32", "int32")).toBe(false);
    expect(() => castElements(new Int32Array(1), "int32", "float32")).toThrow("cast: from int32 to float32");
  });

  test("rounds to nearest even, keeps what fits exactly, and NaN stays NaN", () => {
    const bfloat16 = (value: number): number =>
      Number(castElements(Float32Array.of(value), "float32", "bfloat16")[0]);
    expect(bfloat16(1)).toBe(0x3f80);
    expect(bfloat16(1 + 2 ** -8)).toBe(0x3f80);
    expect(bfloat16(1 + 3 * 2 ** -8)).toBe(0x3f82);
    expect(bfloat16(-0)).toBe(0x8000);
    expect(bfloat16(3.4e38)).toBe(0x7f80);
    expect(bfloat16(Number.POSITIVE_INFINITY)).toBe(0x7f80);
    expect(bfloat16(Number.NaN) & 0x7fff).toBeGreaterThan(0x7f80);
    const hostileNaN = new Float32Array(Uint32Array.of(0x7fffffff).buffer);
    expect(Number(castElements(hostileNaN, "float32", "bfloat16")[0]) & 0x7fff).toBeGreaterThan(0x7f80);
  });

  test("into a wider one and back gives the same bits", () => {
    const narrow: StoredDType[] = ["bfloat16", "float16", "float32"];
    const wide: StoredDType[] = ["float32", "float64"];
    fc.assert(
      fc.property(
        fc.constantFrom(...narrow),
        fc.constantFrom(...wide),
        fc.array(fc.float({ noNaN: true }), { maxLength: 20 }),
        (from, to, numbers) => {
          const values = castElements(Float32Array.from(numbers), "float32", from);
          const back = castElements(castElements(values, from, to), to, from);
          expect(bytesOf(back)).toEqual(bytesOf(values));
          expect(newHostArray(from, 0).constructor).toBe(back.constructor);
        },
      ),
    );
  });
});

import { describe, expect, test } from "bun:test";
import type { Chunk, ManifestTensor } from "../../checkpoint/manifest.ts";
import { planLoad } from "../../checkpoint/plan.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";

function rows(name: string, counts: readonly number[], columns: number): ManifestTensor {
  const chunks: Chunk[] = [];
  let row = 0;
  for (const [i, count] of counts.entries()) {
    chunks.push({
      offsets: [row, 0],
      sizes: [count, columns],
      file: `f${i}`,
      begin: 64,
      end: 64 + count * columns * 4,
    });
    row += count;
  }
  return { name, dtype: "float32", shape: [row, columns], chunks };
}

const want = (
  name: string,
  shape: readonly number[],
  ...pieces: { offsets: number[]; sizes: number[] }[]
) => ({
  name,
  dtype: "float32" as const,
  shape,
  pieces,
});

describe("the load planner", () => {
  test("reads just the rows wanted, from each file that has some", () => {
    const plans = planLoad([rows("w", [4, 4], 2)], [want("w", [8, 2], { offsets: [3, 0], sizes: [2, 2] })]);
    expect(plans.length).toBe(1);
    expect(plans[0]!.bytes).toBe(16);
    expect(
      plans[0]!.transfers.map(({ file, source, target, length }) => ({ file, source, target, length })),
    ).toEqual([
      { file: "f0", source: 64 + 24, target: 0, length: 8 },
      { file: "f1", source: 64, target: 8, length: 8 },
    ]);
  });

  test("an unchanged layout is one contiguous run per piece", () => {
    const saved = rows("w", [5, 5, 5], 3);
    const plans = planLoad(
      [saved],
      [
        want(
          "w",
          [15, 3],
          ...saved.chunks.map(({ offsets, sizes }) => ({ offsets: [...offsets], sizes: [...sizes] })),
        ),
      ],
    );
    for (const { transfers } of plans)
      expect(transfers.map(({ counts, length }) => [counts, length])).toEqual([[[], 60]]);
  });

  test("holes, missing tensors, dtypes, shapes and boxes outside are all reported at once", () => {
    const whole = rows("hole", [4, 4], 2);
    const saved = [
      { ...whole, chunks: whole.chunks.slice(1) },
      rows("shape", [4], 2),
      rows("dtype", [4], 2),
      rows("box", [4], 2),
    ];
    const wanted = [
      want("hole", [8, 2], { offsets: [3, 0], sizes: [2, 2] }, { offsets: [4, 0], sizes: [4, 2] }),
      want("shape", [4, 3]),
      { ...want("dtype", [4, 2]), dtype: "bfloat16" as const },
      want("box", [4, 2], { offsets: [3, 0], sizes: [2, 2] }),
      want("gone", [1]),
    ];
    expect(() => planLoad(saved, wanted)).toThrow(CheckpointError);
    expect(() => planLoad(saved, wanted)).toThrow(
      "tensor hole: box [3:5, 0:2]: 2 of 4 elements are saved; tensor shape: saved with shape [4,2], wanted with [4,3]; " +
        "tensor dtype: saved as float32, wanted as bfloat16; tensor box: box [3:5, 0:2] is outside its shape [4,2]; tensor gone: missing",
    );
  });

  test("empty pieces need nothing, also of empty tensors", () => {
    const empty: ManifestTensor = { name: "e", dtype: "float32", shape: [0, 3], chunks: [] };
    const plans = planLoad(
      [empty, rows("w", [2], 2)],
      [
        want("e", [0, 3], { offsets: [0, 0], sizes: [0, 3] }),
        want("w", [2, 2], { offsets: [2, 0], sizes: [0, 2] }),
      ],
    );
    expect(plans.map(({ bytes, transfers }) => [bytes, transfers])).toEqual([
      [0, []],
      [0, []],
    ]);
  });

  test("pieces come in the order of their bytes, so that neighbours share a block", () => {
    const saved = ["a", "b", "c"].map((name, i): ManifestTensor => {
      const begin = 64 + 8 * (2 - i);
      return {
        name,
        dtype: "float32",
        shape: [2],
        chunks: [{ offsets: [0], sizes: [2], file: "f", begin, end: begin + 8 }],
      };
    });
    const plans = planLoad(
      saved,
      saved.map(({ name }) => want(name, [2], { offsets: [0], sizes: [2] })),
    );
    expect(plans.map((plan) => plan.tensor)).toEqual([2, 1, 0]);
  });

  test("100,000 chunks against 1,000 boxes across them give each overlap once", () => {
    const side = 316;
    const chunks = Array.from({ length: side * side }, (_, i): Chunk => {
      return {
        offsets: [Math.floor(i / side) * 2, (i % side) * 2],
        sizes: [2, 2],
        file: "f",
        begin: i * 16,
        end: i * 16 + 16,
      };
    });
    const saved: ManifestTensor = { name: "w", dtype: "float32", shape: [2 * side, 2 * side], chunks };
    const pieces = Array.from({ length: 1000 }, (_, i) => ({
      offsets: [(i % 600) + 1, (i * 7) % 600],
      sizes: [4, 5],
    }));
    const plans = planLoad([saved], [want("w", saved.shape, ...pieces)]);
    for (const { piece, transfers } of plans) {
      const { offsets } = pieces[piece]!;
      const across = [4, 5].map(
        (size, d) => Math.floor((offsets[d]! + size - 1) / 2) - Math.floor(offsets[d]! / 2) + 1,
      );
      expect(transfers.length).toBe(across[0]! * across[1]!);
    }
  });
});

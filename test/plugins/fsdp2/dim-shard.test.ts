import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { planMoves } from "../../../core/engine/moves.ts";
import { dim0Shard } from "../../../plugins/fsdp2/dim-shard.ts";

const spec = (name: string, shape: readonly number[]) => ({ name, shape, dtype: "float32" as const });

describe("dim0Shard", () => {
  // Rows per rank by torch.chunk, as PyTorch's FSDP2 has them.
  const table: readonly [number, readonly (readonly number[])[]][] = [
    [
      1,
      [
        [1, 0],
        [1, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
      ],
    ],
    [
      3,
      [
        [2, 1],
        [1, 1, 1],
        [1, 1, 1, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
      ],
    ],
    [
      5,
      [
        [3, 2],
        [2, 2, 1],
        [2, 2, 1, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
      ],
    ],
    [
      9,
      [
        [5, 4],
        [3, 3, 3],
        [3, 3, 3, 0],
        [2, 2, 2, 2, 1, 0, 0, 0],
      ],
    ],
    [
      10,
      [
        [5, 5],
        [4, 4, 2],
        [3, 3, 3, 1],
        [2, 2, 2, 2, 2, 0, 0, 0],
      ],
    ],
    [
      17,
      [
        [9, 8],
        [6, 6, 5],
        [5, 5, 5, 2],
        [3, 3, 3, 3, 3, 2, 0, 0],
      ],
    ],
  ];
  for (const [rows, worlds] of table) {
    for (const counts of worlds) {
      test(`cuts ${rows} rows over ${counts.length} ranks as ${counts.join(", ")}`, () => {
        const shard = dim0Shard([spec("w", [rows, 7])], counts.length);
        expect(counts.map((_, rank) => shard.localShape(0, rank))).toEqual(counts.map((count) => [count, 7]));
        expect(shard.shardNumel).toBe(counts[0]! * 7);
      });
    }
  }

  test("lays A(5x2) and B(3) out over two ranks as PyTorch's worked example does", () => {
    const shard = dim0Shard([spec("A", [5, 2]), spec("B", [3])], 2);
    expect(shard.shardNumel).toBe(8);
    expect(shard.pieces(0)).toEqual([
      { parameter: 0, offsets: [0, 0], sizes: [3, 2], shardOffset: 0 },
      { parameter: 1, offsets: [0], sizes: [2], shardOffset: 6 },
    ]);
    expect(shard.pieces(1)).toEqual([
      { parameter: 0, offsets: [3, 0], sizes: [2, 2], shardOffset: 0 },
      { parameter: 1, offsets: [2], sizes: [1], shardOffset: 6 },
    ]);
    expect(planMoves(shard).padded).toBe(true);
  });

  test("gives the local shapes of PyTorch's own run of gpt2-tiny", async () => {
    const url = new URL("../../fixtures/gpt2-tiny/fsdp2.json", import.meta.url);
    const { local_shapes: ranks } = (await Bun.file(url).json()) as {
      local_shapes: Record<string, number[]>[];
    };
    const names = Object.keys(ranks[0]!);
    const specs = names.map((name) => {
      const parts = ranks.map((rank) => rank[name]!);
      return spec(name, [parts.reduce((sum, shape) => sum + shape[0]!, 0), ...parts[0]!.slice(1)]);
    });
    const shard = dim0Shard(specs, ranks.length);
    for (const [rank, shapes] of ranks.entries()) {
      for (const [i, name] of names.entries()) expect(shard.localShape(i, rank)).toEqual(shapes[name]!);
    }
  });

  test("covers every element exactly once, inside equal shards, and moves out what it moved in", () => {
    const shape = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 3 });
    const property = fc.property(
      fc.array(shape, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 11 }),
      (shapes, ranks) => {
        const shard = dim0Shard(
          shapes.map((extents, i) => spec(`p${i}`, extents)),
          ranks,
        );
        const { moves } = planMoves(shard);
        const seen = new Set<number>();
        for (const [i, extents] of shapes.entries()) {
          const numel = extents.reduce((a, b) => a * b, 1);
          const whole = Array.from({ length: numel }, (_, at) => at + 1);
          const gathered = new Map<number, number>();
          copy(
            moves[i]!.in,
            (at) => whole[at]!,
            (at, value) => gathered.set(at, value),
          );
          for (const at of gathered.keys()) {
            expect(seen.has(at)).toBe(false);
            seen.add(at);
            expect(at).toBeLessThan(ranks * shard.shardNumel);
          }
          const back = new Array<number>(numel).fill(0);
          copy(
            moves[i]!.out,
            (at) => gathered.get(at)!,
            (at, value) => {
              back[at] = value;
            },
          );
          expect(back).toEqual(whole);
          const { alias } = moves[i]!;
          if (alias !== undefined)
            expect(whole.every((value, at) => gathered.get(alias + at) === value)).toBe(true);
        }
      },
    );
    fc.assert(property, { numRuns: 200, seed: 20261122 });
  });

  test("refuses a parameter without dims and says what to do", () => {
    expect(() => dim0Shard([spec("scale", [])], 2)).toThrow(ShapeError);
    expect(() => dim0Shard([spec("scale", [])], 2)).toThrow(/"scale".*shape \[1\]/);
  });
});

/** The copies of a call, element by element. */
function copy(
  boxes: ReturnType<typeof planMoves>["moves"][number]["in"],
  read: (at: number) => number,
  write: (at: number, value: number) => void,
): void {
  for (const box of boxes) {
    const walk = (dim: number, source: number, target: number): void => {
      if (dim === box.sizes.length) write(target, read(source));
      else
        for (let i = 0; i < box.sizes[dim]!; i++) {
          walk(dim + 1, source + i * box.sourceStrides[dim]!, target + i * box.targetStrides[dim]!);
        }
    };
    walk(0, box.sourceOffset, box.targetOffset);
  }
}

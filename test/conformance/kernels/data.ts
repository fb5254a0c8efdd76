/**
 * Conformance of kernels that move data: fill, copy, cast, embedding, dropout.
 *
 * @module
 */
import { expect, test } from "bun:test";
import type { DType } from "../../../core/contracts/dtype.ts";
import type { CopyBox } from "../../../core/contracts/kernels.ts";
import { randomWords } from "../../../core/tensor/random.ts";
import { Case, cases, contiguous, dot, fromBfloat16, indicesOf, rounded, type Suite } from "./harness.ts";

export function dataConformance(suite: Suite): void {
  test("fill writes every element of every dtype", async () => {
    for (const dtype of suite.storage) {
      for (const length of [0, 1, 2, 3, 5, 1027]) {
        const test = new Case(suite, length);
        const out = test.out(dtype, length);
        test.backend.kernels.fill(out, 2);
        expect(await test.get(out), dtype).toEqual(Array(length).fill(rounded(dtype, 2)));
        await test.finish();
      }
    }
  });

  test("copy moves boxes of every dtype and leaves the rest alone", async () => {
    for (const dtype of suite.storage) {
      for (let seed = 0; seed < 12; seed++) {
        const test = new Case(suite, 100 + seed);
        const { source, target, boxes, want } = copyCase(test, dtype);
        test.backend.kernels.copy(source, target, boxes);
        expect(await test.get(target), `${dtype}, seed ${test.seed}`).toEqual(want(false));
        await test.finish();
      }
    }
  });

  test("copy with accumulate adds boxes", () =>
    cases(suite, 16, async (test, dtype) => {
      const { source, target, boxes, want } = copyCase(test, dtype);
      test.backend.kernels.copy(source, target, boxes, true);
      await test.expectClose(target, want(true), "copy with accumulate");
    }));

  for (const from of suite.storage) {
    test(`cast from ${from} to every dtype rounds to nearest even and truncates to integers`, async () => {
      for (const to of suite.storage) {
        for (const length of [0, 1, 3, 8, 5001]) {
          const test = new Case(suite, 7 + length);
          const values = castValues(test, from, to, length);
          const source = test.put(from, values);
          const target = test.out(to, length);
          test.backend.kernels.cast(source, target);
          const want = values.map((v) => rounded(to, v));
          expect(await test.get(target), `${from} to ${to}`).toEqual(want);
          await test.finish();
        }
      }
    });
  }

  if (suite.storage.includes("bfloat16")) {
    test("cast rounds float32 halfway cases to even in bfloat16", async () => {
      const test = new Case(suite, 1);
      const bits = [
        0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff, 0xff800000, 0x00000001, 0x80008000,
      ];
      const values = bits.map((b) => new Float32Array(new Uint32Array([b]).buffer)[0]!);
      const target = test.out("bfloat16", values.length);
      test.backend.kernels.cast(test.put("float32", values), target);
      const want = [0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80, 0xff80, 0, 0x8000];
      expect(await test.get(target)).toEqual(want.map(fromBfloat16));
      await test.finish();
    });
  }

  test("embedding looks rows up by int32 and int64 indices", () =>
    cases(suite, 16, async (test, dtype, index) => {
      const [tableRows, columns] = [test.integer(1, 40), test.extent(70)];
      const rows = test.extent(60);
      const table = test.numbers(dtype, tableRows * columns);
      const chosen = Array.from({ length: rows }, () => test.integer(0, tableRows - 1));
      const indices = test.put(index % 2 === 0 ? "int32" : "int64", chosen);
      const out = test.out(dtype, rows * columns);
      test.backend.kernels.embedding(test.put(dtype, table), indices, out, rows, columns);
      const want = chosen.flatMap((row) => table.slice(row * columns, (row + 1) * columns));
      await test.expectClose(out, want, "embedding", { tolerance: 0 });
    }));

  test("embeddingBackward adds gradients of equal indices and clears the rest", () =>
    cases(suite, 16, async (test, dtype, index) => {
      const [tableRows, columns] = [test.integer(1, 12), test.extent(70)];
      const rows = test.extent(60);
      const gradient = test.numbers(dtype, rows * columns);
      const chosen = Array.from({ length: rows }, () => test.integer(0, tableRows - 1));
      const indices = test.put(index % 2 === 0 ? "int64" : "int32", chosen);
      const out = test.out(dtype, tableRows * columns);
      test.backend.kernels.embeddingBackward(test.put(dtype, gradient), indices, out, rows, columns);
      const want = Array<number>(tableRows * columns).fill(0);
      for (let i = 0; i < rows * columns; i++)
        want[chosen[Math.floor(i / columns)]! * columns + (i % columns)]! += gradient[i]!;
      await test.expectClose(out, want, "embedding backward", { scale: want.map(() => 3 * rows) });
    }));

  test("dropout keeps exactly the elements that the random stream says and scales them", () =>
    cases(suite, 10, async (test, dtype, index) => {
      const length = [0, 1, 3, 4, 5, 1000, 4099, 8192, 64, 127][index]!;
      const p = [0, 0.1, 0.5, 0.9, 1, 0.2, 0.3, 0.75, 0.25, 0.6][index]!;
      const values = test.numbers(dtype, length);
      const key = { high: test.integer(0, 2 ** 32 - 1), low: test.integer(0, 2 ** 32 - 1) };
      const words = new Uint32Array(length);
      randomWords(key, 0, words);
      const want = values.map((v, i) => (words[i]! * 2 ** -32 >= p ? v / (1 - p) : 0));
      const x = test.put(dtype, values);
      const out = test.out(dtype, length);
      test.backend.kernels.dropout(x, out, p, key);
      await test.expectClose(out, want, `dropout of ${p}`);
      test.backend.kernels.dropout(x, x, p, key);
      await test.expectClose(x, want, `dropout of ${p} in place`);
    }));
}

interface CopyCase {
  source: ReturnType<Case["put"]>;
  target: ReturnType<Case["put"]>;
  boxes: CopyBox[];
  want(accumulate: boolean): number[];
}

/** Boxes that meet disjoint parts of the target: stacked along it, each permuted or with gaps in the source. */
function copyCase(test: Case, dtype: DType): CopyCase {
  const boxes: CopyBox[] = [];
  let sourceEnd = 0;
  let targetEnd = 0;
  for (let n = test.integer(0, 3); n > 0; n--) {
    const sizes = Array.from({ length: test.integer(0, 4) }, () => test.extent(test.pick([2, 5, 40])));
    const padded = sizes.map((size) => size + test.integer(0, 2));
    const sourceStrides =
      test.uniform() < 0.3 ? contiguous(padded.toReversed()).toReversed() : contiguous(padded);
    const targetStrides = test.uniform() < 0.5 ? contiguous(sizes) : contiguous(padded);
    boxes.push({ sizes, sourceOffset: sourceEnd, sourceStrides, targetOffset: targetEnd, targetStrides });
    sourceEnd += padded.reduce((a, b) => a * b, 1);
    targetEnd += padded.reduce((a, b) => a * b, 1);
  }
  const small = (length: number): number[] =>
    Array.from({ length }, () => (dtype === "bool" ? test.integer(0, 1) : test.integer(0, 100)));
  const [from, before] = [small(sourceEnd), small(targetEnd)];
  return {
    source: test.put(dtype, from),
    target: test.put(dtype, before),
    boxes,
    want(accumulate) {
      const result = [...before];
      for (const box of boxes) {
        for (const index of indicesOf(box.sizes)) {
          const to = box.targetOffset + dot(index, box.targetStrides);
          const value = from[box.sourceOffset + dot(index, box.sourceStrides)]!;
          result[to] = accumulate ? result[to]! + value : value;
        }
      }
      return result;
    },
  };
}

function castValues(test: Case, from: DType, to: DType, length: number): number[] {
  const unsigned = to === "uint8" || from === "uint8";
  const low = unsigned ? 0 : -120;
  return Array.from({ length }, () =>
    rounded(from, test.uniform() < 0.1 ? 0 : low + (120 - low) * test.uniform()),
  );
}

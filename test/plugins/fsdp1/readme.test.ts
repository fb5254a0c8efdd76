import { expect, test } from "bun:test";
import { splitDivision } from "../../../core/engine/gradient-division.ts";
import { OPTIONS } from "../../../plugins/fsdp1/options.ts";

const readme = await Bun.file(new URL("../../../plugins/fsdp1/README.md", import.meta.url)).text();

/** Cells of the rows between two headings. */
function rows(from: string, to: string): string[][] {
  const part = readme.slice(readme.indexOf(from), readme.indexOf(to));
  return part
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    );
}

test("the table of options has every option, in the order of the code", () => {
  const table = rows("## Options", "| strategy |").slice(2);
  const named = table.flatMap(([name]) => [...name!.matchAll(/`(\w+)`/g)].map(([, option]) => option!));
  expect(named).toEqual([...OPTIONS]);
});

test("the table of gradient division is what gradients are divided by, and what PyTorch's FSDP1 divides by", () => {
  const [worlds, , before, after] = rows("## How gradients", "## Different").map((row) =>
    row.slice(1).map(Number),
  );
  expect(worlds).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64, 128]);
  for (const [i, world] of worlds!.entries()) {
    // Of hybrid strategies all ranks count.
    for (const replicateSize of [1, 2].filter((size) => world % size === 0)) {
      const request = {
        shardSize: world / replicateSize,
        replicateSize,
        factor: undefined,
        forceSum: false,
      } as const;
      for (const dtype of ["float32", "float16"] as const) {
        const { predivide, postdivide, reduceScatter, allReduce } = splitDivision({ dtype, ...request });
        expect([predivide, postdivide]).toEqual([before![i]!, after![i]!]);
        expect([reduceScatter, allReduce]).toEqual(["sum", "sum"]);
      }
    }
  }
});

import { expect, test } from "bun:test";
import { textTable } from "../../../core/runtime/text-table.ts";

test("columns line up on the chosen side and lines end with their text", () => {
  const rows = [
    ["loss", "2.31", "nats"],
    ["steps", "300", ""],
  ];
  expect(textTable(rows, { align: ["left", "right"] })).toEqual(["loss   2.31  nats", "steps   300"]);
});

test("a header is underlined and counts for the widths", () => {
  expect(textTable([["a", "1"]], { header: ["name", "n"], indent: 2 })).toEqual([
    "  name  n",
    "  ----  -",
    "  a     1",
  ]);
});

test("short rows, wide characters and no rows are fine", () => {
  expect(textTable([["é𝛽", "x"], ["abc"]])).toEqual(["é𝛽   x", "abc"]);
  expect(textTable([])).toEqual([]);
});

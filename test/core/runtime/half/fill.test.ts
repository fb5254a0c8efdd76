import { expect, test } from "bun:test";
import { DTYPES, type DType, newHostArray } from "../../../../core/contracts/dtype.ts";
import { fillElements } from "../../../../core/runtime/half/fill.ts";
import { fromBfloat16 } from "../../../../core/runtime/half/plain.ts";

function filled(dtype: DType, value: number): number[] {
  const elements = newHostArray(dtype, 3);
  fillElements(elements, dtype, value);
  const numbers = Array.from(elements as Float32Array, Number);
  return dtype === "bfloat16" ? numbers.map(fromBfloat16) : numbers;
}

test("every dtype holds the number it is filled with", () => {
  for (const dtype of Object.keys(DTYPES) as DType[]) expect(filled(dtype, 1), dtype).toEqual([1, 1, 1]);
});

test("integers truncate, booleans are whether it is not 0, 16-bit floats round to the nearest", () => {
  expect(filled("int64", -2.75)).toEqual([-2, -2, -2]);
  expect(filled("bool", 0.5)).toEqual([1, 1, 1]);
  expect(filled("bool", -0)).toEqual([0, 0, 0]);
  expect(filled("bfloat16", 1.01171875)).toEqual([1.015625, 1.015625, 1.015625]);
  expect(filled("float16", 1.0006)).toEqual([1.0009765625, 1.0009765625, 1.0009765625]);
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { closestName, quoted, quotedList } from "../../../core/runtime/names.ts";

describe("closestName", () => {
  test("finds the name behind a slip", () => {
    expect(closestName("cup", ["webgpu", "cpu"])).toBe("cpu");
    expect(closestName("stepz", ["seed", "steps"])).toBe("steps");
    expect(closestName("Batch-Size", ["batch-size"])).toBe("batch-size");
  });

  test("does not guess when nothing is near, and takes the first of equals", () => {
    expect(closestName("banana", ["cpu", "webgpu"])).toBeUndefined();
    expect(closestName("x", [])).toBeUndefined();
    expect(closestName("cat", ["bat", "rat"])).toBe("bat");
  });

  test("a single edit of a name of three or more letters finds it", () => {
    const name = fc.stringMatching(/^[a-z]{3,12}$/);
    fc.assert(
      fc.property(name, fc.nat(), fc.constantFrom("drop", "swap", "insert"), (text, at, edit) => {
        const i = at % (text.length - 1);
        const edited =
          edit === "drop"
            ? text.slice(0, i) + text.slice(i + 1)
            : edit === "swap"
              ? text.slice(0, i) + text[i + 1] + text[i] + text.slice(i + 2)
              : `${text.slice(0, i)}z${text.slice(i)}`;
        expect(closestName(edited, [text])).toBe(text);
      }),
    );
  });
});

describe("quoted", () => {
  test("stays one line whatever the value", () => {
    expect(quoted('a\n"b"')).toBe('"a\\n\\"b\\""');
    expect(quotedList(["a", "b"])).toBe('"a", "b"');
    expect(quotedList([])).toBe("none");
  });
});

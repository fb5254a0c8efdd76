import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeMsgpack, encodeMsgpack, type Plain } from "../../checkpoint/msgpack.ts";
import { scanMsgpack } from "../../checkpoint/msgpack-scan.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";

const { value } = fc.letrec<{ value: Plain }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.constantFrom(
      null,
      true,
      false,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      2 ** 53 - 1,
      -(2 ** 53 - 1),
      2 ** 32,
      "__proto__",
    ),
    fc.double().map((number) => number + 0),
    fc.integer(),
    fc.string({ unit: "grapheme" }),
    fc.uint8Array(),
    fc.array(tie("value")),
    fc.dictionary(fc.string(), tie("value"), { noNullPrototype: true }),
  ),
}));

describe("canonical msgpack", () => {
  test("every plain value comes back", () => {
    fc.assert(fc.property(value, (input) => expect(decodeMsgpack(encodeMsgpack(input))).toEqual(input)));
  });

  test("the order of keys does not show in the bytes", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.integer(), { noNullPrototype: true }), (input) => {
        const reversed = Object.fromEntries(Object.entries(input).reverse());
        expect(encodeMsgpack(reversed)).toEqual(encodeMsgpack(input));
      }),
    );
  });

  test("what has no faithful encoding is refused", () => {
    const cycle: unknown[] = [];
    cycle.push(cycle);
    for (const input of [
      undefined,
      () => 1,
      Symbol("s"),
      1n,
      new Date(0),
      new Map(),
      "\ud800",
      { "\udc00": 1 },
      cycle,
    ]) {
      expect(() => encodeMsgpack(input as Plain)).toThrow(CheckpointError);
    }
  });
});

describe("the scan", () => {
  const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
  const rejected: [string, Uint8Array][] = [
    ["nothing", hex("")],
    ["two values", hex("01 02")],
    ["reserved byte 0xC1", hex("c1")],
    ["a fixed extension", hex("d4 01 00")],
    ["msgpackr's record extension", hex("d4 72 40")],
    ["an extension of 8-bit length", hex("c7 01 70 00")],
    ["a timestamp", hex("d6 ff 00000000")],
    ["duplicate keys", hex("82 a1 61 01 a1 61 02")],
    ["duplicate keys in two encodings", hex("82 a1 61 01 d9 01 61 02")],
    ["a key that is a number", hex("81 01 02")],
    ["a key that is a map", hex("81 80 02")],
    ["invalid UTF-8", hex("a1 ff")],
    ["an encoded surrogate", hex("a3 eda080")],
    ["a truncated string", hex("a5 61")],
    ["a truncated number", hex("cb 00")],
    ["a truncated array", hex("92 01")],
    ["an array that claims 2^32 - 1 values", hex("dd ffffffff")],
    ["a map that claims 2^32 - 1 pairs", hex("df ffffffff")],
    ["binary that claims 4 GiB", hex("c6 ffffffff 00")],
    ["nesting of 33", hex(`${"91".repeat(33)}01`)],
    ["nesting of 200,000", hex("91".repeat(200_000))],
    ["maps nested without end", hex("81a161".repeat(1000))],
  ];
  test.each(rejected)("refuses %s", (_, bytes) => {
    expect(() => decodeMsgpack(bytes)).toThrow(CheckpointError);
  });

  test("accepts every head that plain data can have", () => {
    const accepted: [string, Plain][] = [
      ["d9 01 61", "a"],
      ["da 0001 61", "a"],
      ["db 00000001 61", "a"],
      ["dc 0001 01", [1]],
      ["dd 00000001 01", [1]],
      ["de 0001 a161 01", { a: 1 }],
      ["df 00000001 a161 01", { a: 1 }],
      ["c5 0001 07", Uint8Array.of(7)],
      ["ca 3f800000", 1],
      ["cf 0000000000000005", 5],
      ["d3 fffffffffffffffb", -5],
      ["d0 ff", -1],
      [`${"91".repeat(31)}90`, JSON.parse(`${"[".repeat(32)}${"]".repeat(32)}`)],
    ];
    for (const [bytes, expected] of accepted) expect(decodeMsgpack(hex(bytes))).toEqual(expected);
  });

  test("integers above 2^53 - 1 are refused, not rounded", () => {
    expect(() => decodeMsgpack(hex("cf 0020000000000001"))).toThrow(CheckpointError);
    expect(() => decodeMsgpack(hex("d3 8000000000000000"))).toThrow(CheckpointError);
  });

  test("whatever it lets through of mutated bytes, decoding never fails otherwise", () => {
    fc.assert(
      fc.property(value, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), (input, edits) => {
        const bytes = encodeMsgpack(input);
        for (const [at, byte] of edits) bytes[at % bytes.length] = byte;
        try {
          scanMsgpack(bytes);
          decodeMsgpack(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(CheckpointError);
        }
      }),
    );
  });
});

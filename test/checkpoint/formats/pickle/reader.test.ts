import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type GlobalUse, readPickle } from "../../../../checkpoint/formats/pickle/reader.ts";
import {
  call,
  dict,
  global,
  object,
  type PickleTuple,
  type PickleValue,
  tuple,
} from "../../../../checkpoint/formats/pickle/values.ts";
import { writePickle } from "../../../../checkpoint/formats/pickle/writer.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";

const GLOBALS: ReadonlyMap<string, GlobalUse> = new Map<string, GlobalUse>([
  ["torch Size", "call"],
  ["torch float32", "constant"],
  ["meta Box", "object"],
  ["collections OrderedDict", "call"],
  ["_codecs encode", "call"],
]);

/** A pickle from text whose characters are its bytes. */
const bytes = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));
const read = (text: string): PickleValue => readPickle(bytes(text), GLOBALS);

describe("a pickle is read", () => {
  // What CPython 3.11 writes with pickle.dumps(value, protocol).
  const cases: readonly (readonly [string, string, PickleValue])[] = [
    ["None", "\x80\x02N.", null],
    ["True by protocol 4", "\x80\x04\x88.", true],
    ["255", "\x80\x02K\xff.", 255],
    ["65535", "\x80\x02M\xff\xff.", 65535],
    ["-1", "\x80\x02J\xff\xff\xff\xff.", -1],
    ["2**31", "\x80\x02\x8a\x05\x00\x00\x00\x80\x00.", 2 ** 31],
    ["-2**63", "\x80\x02\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", -(2n ** 63n)],
    ["0 of no bytes", "\x80\x02\x8a\x00.", 0],
    ["1.5", "\x80\x02G?\xf8\x00\x00\x00\x00\x00\x00.", { kind: "float", value: 1.5 }],
    ["'é'", "\x80\x02X\x02\x00\x00\x00\xc3\xa9q\x00.", "é"],
    ["'a' in a frame", "\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.", "a"],
    ["(1, 2, 3, 4)", "\x80\x02(K\x01K\x02K\x03K\x04tq\x00.", tuple(1, 2, 3, 4)],
    ["[1]", "\x80\x02]q\x00K\x01a.", [1]],
    ["[1, 2]", "\x80\x02]q\x00(K\x01K\x02e.", [1, 2]],
    ["{1: 2}", "\x80\x02}q\x00K\x01K\x02s.", dict([[1, 2]])],
    ["b'ab' by protocol 3", "\x80\x03C\x02abq\x00.", Uint8Array.of(97, 98)],
    ["a class by two lines", "\x80\x02ctorch\nfloat32\nq\x00.", global("torch float32")],
    [
      "a class from the stack",
      "\x80\x04\x8c\x05torch\x94\x8c\x07float32\x94\x93\x94.",
      global("torch float32"),
    ],
    ["a call", "\x80\x02ctorch\nSize\nq\x00K\x03\x85q\x01\x85q\x02Rq\x03.", call("torch Size", tuple(3))],
    ["an object", "\x80\x02cmeta\nBox\n)\x81K\x07b.", object("meta Box", 7)],
    [
      "an OrderedDict with attributes",
      "\x80\x02ccollections\nOrderedDict\n)RK\x01K\x02s}X\x01\x00\x00\x00aK\x03sb.",
      dict([[1, 2]]),
    ],
    ["a filled OrderedDict", "\x80\x02ccollections\nOrderedDict\n)RK\x01K\x02s.", dict([[1, 2]])],
  ];
  test.each(cases)("%s", (_, text, value) => {
    expect(read(text)).toEqual(value);
  });

  test("with one identity for what is referred to twice", () => {
    // BUILD changes an object that is in the memo already.
    const value = read("\x80\x02(cmeta\nBox\n)\x81q\x00h\x00K\x07bt.") as PickleTuple;
    expect(value.items).toEqual([object("meta Box", 7), object("meta Box", 7)]);
    expect(value.items[0]).toBe(value.items[1]!);
  });

  test("as it was written, whatever it holds", () => {
    const { value } = fc.letrec<{ value: PickleValue }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom<PickleValue>(null, true, false, global("torch float32"), 2n ** 64n, -(2n ** 70n)),
        fc.maxSafeInteger(),
        fc.double({ noNaN: true }).map((value): PickleValue => ({ kind: "float", value })),
        fc.string({ unit: "grapheme" }),
        fc.array(tie("value"), { maxLength: 5 }),
        fc.array(tie("value"), { maxLength: 5 }).map((items) => tuple(...items)),
        fc.array(fc.tuple(fc.string(), tie("value")), { maxLength: 5 }).map(dict),
        fc.array(tie("value"), { maxLength: 3 }).map((args) => call("torch Size", ...args)),
        tie("value").map((state) => object("meta Box", state)),
      ),
    }));
    fc.assert(
      fc.property(value, (value) => {
        expect(readPickle(writePickle(value), GLOBALS)).toEqual(value);
      }),
      { numRuns: 300 },
    );
  });

  test("with lists and dicts of more than a batch", () => {
    const value = [
      Array.from({ length: 2001 }, (_, i) => i),
      dict(Array.from({ length: 1001 }, (_, i) => [i, `${i}`])),
    ];
    expect(readPickle(writePickle(value), GLOBALS)).toEqual(value);
  });
});

describe("a pickle is refused", () => {
  const cases: readonly (readonly [string, string, RegExp])[] = [
    [
      "with a function of the system",
      "\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.",
      /"os system" is not allowed/,
    ],
    ["with eval", "\x80\x02c__builtin__\neval\n.", /"__builtin__ eval" is not allowed/],
    [
      "with a global put together from the memo",
      "\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.",
      /"os system"/,
    ],
    ["with a global whose name is not text", "\x80\x04K\x01K\x02\x93.", /without a name/],
    ["with a name inside an allowed module", "\x80\x02ctorch\nload\n.", /"torch load" is not allowed/],
    ["that calls a class made for objects", "\x80\x02cmeta\nBox\n)R.", /where a call is due/],
    ["that makes an object of a function", "\x80\x02ctorch\nSize\n)\x81.", /where a object is due/],
    ["that calls what is no global", "\x80\x02X\x02\x00\x00\x00id)R.", /a str where a call is due/],
    ["that gives an object arguments", "\x80\x02cmeta\nBox\nK\x01\x85\x81.", /arguments of meta Box/],
    ["that gives a number state", "\x80\x02K\x01K\x02b.", /state for a int/],
    ["that gives an object state twice", "\x80\x02cmeta\nBox\n)\x81K\x01bK\x02b.", /a second state/],
    [
      "that fills a call's result",
      "\x80\x02ctorch\nSize\n)RK\x01K\x02s.",
      /items for a result of torch Size/,
    ],
    ["with INST", "\x80\x02(imeta\nBox\n.", /opcode 0x69/],
    ["with OBJ", "\x80\x02(cmeta\nBox\no.", /opcode 0x6f/],
    ["with EXT1", "\x80\x02\x82\x01.", /opcode 0x82/],
    ["with LONG4", "\x80\x02\x8b\xff\xff\xff\x7f.", /opcode 0x8b/],
    ["with BINUNICODE8", "\x80\x04\x8d\x01\x00\x00\x00\x00\x00\x00\x00a.", /opcode 0x8d/],
    ["with NEWOBJ_EX", "\x80\x04\x92.", /opcode 0x92/],
    ["of protocol 0", "I1\n.", /does not begin with a protocol/],
    ["of protocol 1", "\x80\x01K\x01.", /protocol 1, allowed are 2 to 5/],
    ["of protocol 6", "\x80\x06N.", /protocol 6/],
    ["with two protocols", "\x80\x02\x80\x02N.", /a second protocol/],
    ["that is empty", "", /does not begin/],
    ["that ends early", "\x80\x02K", /1 more bytes are due/],
    ["without a value", "\x80\x02.", /ends with 0 values/],
    ["with two values", "\x80\x02K\x01K\x02.", /ends with 2 values/],
    ["with a mark left open", "\x80\x02(K\x01.", /1 marks open/],
    ["with bytes behind its end", "\x80\x02N.N", /1 bytes follow/],
    [
      "with a string of 2 GiB in a short file",
      "\x80\x02X\xff\xff\xff\x7fab.",
      /a string of 2147483647 bytes/,
    ],
    ["with a string longer than the file", "\x80\x02X\x05\x00\x00\x00ab.", /5 more bytes are due/],
    ["with bytes longer than the file", "\x80\x03C\x05ab.", /5 more bytes are due/],
    [
      "with a frame beyond the file",
      "\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00N.",
      /a frame of 255 bytes/,
    ],
    ["with text that is not UTF-8", "\x80\x02X\x01\x00\x00\x00\xff.", /not valid UTF-8/],
    ["with a memo that was not set", "\x80\x02h\x07.", /memo 7/],
    ["that takes from an empty stack", "\x80\x02\x86.", /the stack is empty/],
    ["that takes from below a mark", "\x80\x02K\x01(K\x02\x86.", /the stack is empty/],
    ["with a tuple without a mark", "\x80\x02t.", /no mark/],
    ["with a key without a value", "\x80\x02}(K\x01u.", /a key without a value/],
    ["that appends to a number", "\x80\x02K\x01K\x02a.", /an append to a int/],
    ["with a line that has no end", "\x80\x02ctorch", /a line without an end/],
  ];
  test.each(cases)("%s", (_, text, problem) => {
    expect(() => read(text)).toThrow(CheckpointError);
    expect(() => read(text)).toThrow(problem);
  });

  test("when its marks nest deeper than any data", () => {
    expect(() => read(`\x80\x02${"(".repeat(1_000_000)}.`)).toThrow(/nesting deeper than 1000/);
  });

  test("or stays small when references would make it huge", () => {
    // Forty tuples, each of twice the one before: 2^40 values to whoever walks it, 160 bytes here.
    const doubling = Array.from(
      { length: 40 },
      (_, i) => `q${String.fromCharCode(i)}h${String.fromCharCode(i)}\x86`,
    );
    expect(read(`\x80\x02N${doubling.join("")}.`)).toMatchObject({ kind: "tuple" });
  });

  test("by the writer, when it is too deep or holds what has no pickle", () => {
    let deep: PickleValue = null;
    for (let i = 0; i < 200; i++) deep = [deep];
    expect(() => writePickle(deep)).toThrow(CheckpointError);
    expect(() => writePickle(1.5)).toThrow(CheckpointError);
    expect(() => writePickle("\ud800")).toThrow(CheckpointError);
  });
});

import { describe, expect, test } from "bun:test";
import {
  parseHeader,
  parseHeaderLength,
  type SafetensorsHeader,
} from "../../../../checkpoint/formats/safetensors/header.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";

/** Parses a file given as header text (or bytes) and a number of data bytes. */
function parse(json: string | Uint8Array, dataBytes = 0): SafetensorsHeader {
  const bytes = typeof json === "string" ? new TextEncoder().encode(json) : json;
  const file = new Uint8Array(8 + bytes.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(bytes.length), true);
  file.set(bytes, 8);
  const length = parseHeaderLength(file.subarray(0, 8), file.length + dataBytes);
  return parseHeader(file.subarray(8, 8 + length), file.length + dataBytes);
}

const entry = (dtype: string, shape: string, begin: number, end: number): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

const F32 = entry("F32", "[2]", 0, 8);

describe("a header is refused", () => {
  const rejected: [string, string | Uint8Array, number][] = [
    ["invalid UTF-8", Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d), 0],
    ["a byte order mark", `\ufeff{}`, 0],
    ["NUL after the JSON", "{}\0", 0],
    ["top-level array", "[]", 0],
    ["deep nesting", `{"a":${"[".repeat(200)}`, 0],
    ["nesting in place of a shape", '{"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}}', 8],
    ["lone surrogate escape", `{"\\ud800":${F32}}`, 8],
    ["control character in a name", `{"a\u0001":${F32}}`, 8],
    ["unknown escape", `{"\\x41":${F32}}`, 8],
    ["leading space", " {}", 0],
    ["trailing newline", "{}\n", 0],
    ["trailing tab", "{}\t", 0],
    ["trailing comma", `{"a":${F32},}`, 8],
    ["unterminated", '{"a', 0],
    ["duplicate tensor name", `{"a":${F32},"a":${entry("F32", "[2]", 8, 16)}}`, 16],
    ["duplicate name by escape", `{"a":${F32},"\\u0061":${entry("F32", "[2]", 8, 16)}}`, 16],
    ["duplicate __metadata__", '{"__metadata__":{},"__metadata__":{}}', 0],
    ["duplicate metadata key", '{"__metadata__":{"a":"1","a":"2"}}', 0],
    ["duplicate field", '{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8],
    ["__metadata__ null", '{"__metadata__":null}', 0],
    ["__metadata__ value not a string", '{"__metadata__":{"a":1}}', 0],
    ["unknown extra field", '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}', 8],
    ["missing field", '{"a":{"dtype":"F32","shape":[2]}}', 8],
    ["unknown dtype", `{"a":${entry("F128", "[1]", 0, 16)}}`, 16],
    ["dtype in lower case", `{"a":${entry("f32", "[2]", 0, 8)}}`, 8],
    ["3 offsets", '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}', 8],
    ["1 offset", '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0]}}', 0],
    ["negative", `{"a":${entry("F32", "[-2]", 0, 8)}}`, 8],
    ["minus zero", `{"a":${entry("F32", "[-0]", 0, 0)}}`, 0],
    ["2.0", `{"a":${entry("F32", "[2.0]", 0, 8)}}`, 8],
    ["2e0", `{"a":${entry("F32", "[2e0]", 0, 8)}}`, 8],
    ["leading zero", `{"a":${entry("F32", "[02]", 0, 8)}}`, 8],
    ["overlap", `{"a":${F32},"b":${entry("F32", "[2]", 4, 12)}}`, 12],
    ["the same bytes twice", `{"a":${F32},"b":${F32}}`, 8],
    ["hole", `{"a":${F32},"b":${entry("F32", "[2]", 12, 20)}}`, 20],
    ["hole in front", `{"a":${entry("F32", "[2]", 4, 12)}}`, 12],
    ["end before begin", '{"a":{"dtype":"F32","shape":[0],"data_offsets":[8,0]}}', 8],
    ["bytes after the last tensor", `{"a":${F32}}`, 9],
    ["short data", `{"a":${F32}}`, 7],
    ["data and no tensor", "{}", 1],
    ["size that is not the shape's", `{"a":${entry("F32", "[3]", 0, 8)}}`, 8],
    ["shape product overflow", `{"a":${entry("F32", "[4294967296,4294967296]", 0, 8)}}`, 8],
    ["extent of 2^53", `{"a":${entry("F32", "[0,9007199254740992]", 0, 0)}}`, 0],
    ["extent of 2^63", `{"a":${entry("F32", "[0,9223372036854775808,9223372036854775808]", 0, 0)}}`, 0],
    [
      "offset that rounds as a double",
      `{"a":${entry("F32", "[2]", 0, 8).replace("[0,8]", "[9007199254740993,9007199254741001]")}}`,
      8,
    ],
    ["empty tensor inside another", `{"a":${F32},"b":${entry("F32", "[0]", 4, 4)}}`, 8],
    ["empty name", `{"":${F32}}`, 8],
    ["F4 with odd count", `{"a":${entry("F4", "[3]", 0, 2)}}`, 2],
    ["F6 that is no whole byte", `{"a":${entry("F6_E2M3", "[2]", 0, 2)}}`, 2],
  ];
  test.each(rejected)("%s", (_, json, dataBytes) => {
    expect(() => parse(json, dataBytes)).toThrow(CheckpointError);
    expect(() => parse(json, dataBytes)).toThrow(/^safetensors header: /);
  });

  test("for its length: zero, above 100 MB, above a given limit, beyond the file, or a file under 8 bytes", () => {
    const first = (length: bigint): Uint8Array => new Uint8Array(BigUint64Array.of(length).buffer);
    expect(parseHeaderLength(first(2n), 10)).toBe(2);
    for (const [length, file] of [
      [0n, 100],
      [100_000_001n, 2e8],
      [2n ** 63n, 100],
      [93n, 100],
    ] as const) {
      expect(() => parseHeaderLength(first(length), file)).toThrow(CheckpointError);
    }
    expect(() => parseHeaderLength(first(17n), 100, 16)).toThrow(CheckpointError);
    expect(() => parseHeaderLength(new Uint8Array(7), 7)).toThrow(CheckpointError);
  });
});

describe("a header is accepted", () => {
  const accepted: [string, string, number][] = [
    ["trailing spaces", `{"a":${F32}}   `, 8],
    ["space between tokens", '{ "a" :\t{"dtype":"F32",\n"shape":[ 2 ],"data_offsets":[0, 8]}}', 8],
    [
      "several empty tensors at one offset",
      `{"a":${entry("F32", "[0]", 0, 0)},"b":${entry("F32", "[0,3]", 0, 0)},"c":${F32}}`,
      8,
    ],
    [
      "a tensor start that is not aligned",
      `{"a":${entry("U8", "[1]", 0, 1)},"b":${entry("F32", "[1]", 1, 5)}}`,
      5,
    ],
    ["no tensor and no data", "{}", 0],
    ["a scalar", `{"a":${entry("F64", "[]", 0, 8)}}`, 8],
    ["extents of 2^53 - 1 beside a zero", `{"a":${entry("F32", "[0,9007199254740991]", 0, 0)}}`, 0],
    [
      "packed types of whole bytes",
      `{"a":${entry("F4", "[2]", 0, 1)},"b":${entry("F6_E3M2", "[4]", 1, 4)}}`,
      4,
    ],
    [
      "fields and tensors in any order",
      `{"b":${entry("F32", "[1]", 8, 12)},"a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}}`,
      12,
    ],
  ];
  test.each(accepted)("%s", (_, json, dataBytes) => {
    expect(parse(json, dataBytes).tensors.size).toBe(json.split("dtype").length - 1);
  });

  test("every dtype of the format", () => {
    const bits: Record<string, number> = {
      BOOL: 8,
      F4: 4,
      F6_E2M3: 6,
      F6_E3M2: 6,
      U8: 8,
      I8: 8,
      F8_E5M2: 8,
      F8_E4M3: 8,
      F8_E8M0: 8,
      F8_E4M3FNUZ: 8,
      F8_E5M2FNUZ: 8,
      I16: 16,
      U16: 16,
      F16: 16,
      BF16: 16,
      I32: 32,
      U32: 32,
      F32: 32,
      C64: 64,
      F64: 64,
      I64: 64,
      U64: 64,
    };
    for (const [dtype, size] of Object.entries(bits)) {
      expect(parse(`{"a":${entry(dtype, "[4]", 0, size / 2)}}`, size / 2).tensors.get("a")!.dtype).toBe(
        dtype,
      );
    }
  });

  test("names that are special to JavaScript, escapes and pairs of surrogates", () => {
    const names = ["__proto__", "constructor", "toString", 'q"\\\n', "\u{1f600}"];
    const members = names.map((name) => `${JSON.stringify(name)}:${entry("F32", "[0]", 0, 0)}`);
    const header = parse(
      `{"__metadata__":{"__proto__":"x","\\u0041":"\\ud83d\\ude00"},${members.join(",")}}`,
    );
    expect([...header.tensors.keys()]).toEqual(names);
    expect([...header.metadata]).toEqual([
      ["__proto__", "x"],
      ["A", "\u{1f600}"],
    ]);
  });
});

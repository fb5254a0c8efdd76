import { describe, expect, test } from "bun:test";
import { sha256Hex } from "../../checkpoint/digest.ts";
import { decodeManifest, encodeManifest, type Manifest } from "../../checkpoint/manifest.ts";
import { encodeBody } from "../../checkpoint/manifest-body.ts";
import { decodeMsgpack, encodeMsgpack, type Plain } from "../../checkpoint/msgpack.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";

const MANIFEST: Manifest = {
  step: 3,
  worldSize: 2,
  createdAt: 1_700_000_000_000,
  tensors: [
    {
      name: "w",
      dtype: "float32",
      shape: [4, 2],
      chunks: [
        { offsets: [0, 0], sizes: [2, 2], file: "a.bin", begin: 64, end: 80 },
        { offsets: [2, 0], sizes: [2, 2], file: "b.bin", begin: 64, end: 80 },
      ],
    },
    {
      name: "s",
      dtype: "int64",
      shape: [],
      chunks: [{ offsets: [], sizes: [], file: "a.bin", begin: 80, end: 88 }],
    },
    { name: "e", dtype: "bool", shape: [0], chunks: [] },
  ],
  files: [
    { name: "a.bin", length: 88, sha256: "0".repeat(64), block: 2 ** 20, crc32: [1] },
    { name: "b.bin", length: 80, sha256: "f".repeat(64), block: 2 ** 20, crc32: [0xffffffff] },
  ],
  values: { lr: 0.1, list: [null, "x", { y: true }] },
  rankValues: [{ seed: 1 }, {}],
};

/** A body of version 2 with a right digest. */
function forge2(change: (body: Loose<Body2>) => void): Uint8Array {
  const body = decodeMsgpack(encodeMsgpack(encodeBody(MANIFEST))) as unknown as Loose<Body2>;
  change(body);
  const bytes = encodeMsgpack(body as unknown as Plain);
  return encodeMsgpack({ format: "fsdp-checkpoint", version: 2, sha256: sha256Hex(bytes), body: bytes });
}

/** What of version 2 differs from the manifest. */
interface Body2 {
  readonly tensors: readonly { readonly shape: readonly number[]; readonly chunks: readonly number[] }[];
  readonly files: readonly { readonly length: number; readonly crc32: Uint8Array }[];
}

/** A manifest that may be spoilt. */
type Loose<T> = T extends readonly (infer Item)[]
  ? Loose<Item>[]
  : T extends object
    ? { -readonly [K in keyof T]: Loose<T[K]> }
    : T;

/** Encodes a changed body of version 1 with a right digest: what a hostile or buggy writer could make. */
function forge(change: (body: Loose<Manifest>) => void, envelope: Record<string, Plain> = {}): Uint8Array {
  const body = structuredClone(MANIFEST) as unknown as Loose<Manifest>;
  change(body);
  const bytes = encodeMsgpack(body as unknown as Plain);
  return encodeMsgpack({
    format: "fsdp-checkpoint",
    version: 1,
    sha256: sha256Hex(bytes),
    body: bytes,
    ...envelope,
  });
}

describe("the manifest", () => {
  test("comes back as it was, and equal ones have equal bytes", () => {
    const bytes = encodeManifest(MANIFEST);
    expect(decodeManifest(bytes)).toEqual(MANIFEST);
    expect(encodeManifest(decodeManifest(bytes))).toEqual(bytes);
    expect(decodeManifest(forge(() => undefined))).toEqual(MANIFEST);
  });

  test("no flipped bit passes", () => {
    const bytes = encodeManifest(MANIFEST);
    for (let at = 0; at < bytes.length * 8; at++) {
      const bad = bytes.slice();
      bad[at >> 3]! ^= 1 << (at & 7);
      expect(() => decodeManifest(bad)).toThrow(CheckpointError);
    }
  });

  test("of another format or a newer version is refused by name", () => {
    expect(() => decodeManifest(forge(() => undefined, { format: "other" }))).toThrow(/format/);
    expect(() => decodeManifest(forge(() => undefined, { version: 3 }))).toThrow(
      "it has version 3, versions up to 2 can be read",
    );
    expect(() => decodeManifest(forge(() => undefined, { extra: 1 }))).toThrow(/extra/);
    expect(Object.keys(decodeMsgpack(encodeManifest(MANIFEST)) as object)).toEqual([
      "body",
      "format",
      "sha256",
      "version",
    ]);
  });

  const faults: [string, (body: Loose<Manifest>) => void, string][] = [
    ["unknown field", (body) => void Object.assign(body, { extra: 1 }), "extra"],
    ["missing field", (body) => void Reflect.deleteProperty(body, "step"), "step"],
    ["unknown dtype", (body) => void Object.assign(body.tensors[0]!, { dtype: "float8" }), "tensors.0.dtype"],
    [
      "negative extent",
      (body) => void Object.assign(body.tensors[0]!, { shape: [-4, 2] }),
      "tensors.0.shape",
    ],
    [
      "fractional offset",
      (body) => void Object.assign(body.tensors[0]!.chunks[0]!.offsets, [0.5]),
      "tensors.0.chunks.0.offsets",
    ],
    [
      "path as a file name",
      (body) => void Object.assign(body.tensors[0]!.chunks[0]!, { file: "../a.bin" }),
      "not a valid file name",
    ],
    ["bytes among values", (body) => void Object.assign(body.values, { raw: Uint8Array.of(1) }), "values"],
    [
      "file not listed",
      (body) => void Object.assign(body.tensors[0]!.chunks[0]!, { file: "c.bin" }),
      "in c.bin, which is not listed",
    ],
    ["file listed twice", (body) => void body.files.push(body.files[0]!), "file a.bin: listed twice"],
    ["tensor listed twice", (body) => void body.tensors.push(body.tensors[2]!), "tensor e: listed twice"],
    [
      "chunk outside the shape",
      (body) => void Object.assign(body.tensors[0]!.chunks[1]!, { offsets: [3, 0] }),
      "outside shape [4,2]",
    ],
    [
      "chunk of another rank",
      (body) => void Object.assign(body.tensors[0]!.chunks[1]!, { offsets: [2] }),
      "outside shape [4,2]",
    ],
    [
      "overlap",
      (body) => void Object.assign(body.tensors[0]!.chunks[1]!, { offsets: [1, 0] }),
      "chunks [0:2, 0:2] and [1:3, 0:2] overlap",
    ],
    ["hole", (body) => void body.tensors[0]!.chunks.pop(), "chunks cover 4 of 8 elements"],
    ["uncovered scalar", (body) => void body.tensors[1]!.chunks.pop(), "chunks cover 0 of 1 elements"],
    [
      "scalar covered twice",
      (body) =>
        void body.tensors[1]!.chunks.push({
          ...body.tensors[1]!.chunks[0]!,
          file: "b.bin",
          begin: 0,
          end: 8,
        }),
      "overlap",
    ],
    [
      "empty chunk",
      (body) =>
        void body.tensors[2]!.chunks.push({ offsets: [0], sizes: [0], file: "a.bin", begin: 0, end: 0 }),
      "empty",
    ],
    [
      "range of the wrong length",
      (body) => void Object.assign(body.tensors[1]!.chunks[0]!, { end: 87 }),
      "has bytes 80 to 87 of a.bin, its elements take 8",
    ],
    [
      "range beyond the file",
      (body) => void Object.assign(body.files[1]!, { length: 79 }),
      "ends at byte 80 of b.bin, which has 79",
    ],
    [
      "ranges that share bytes",
      (body) => void Object.assign(body.tensors[1]!.chunks[0]!, { begin: 76, end: 84 }),
      "tensors w and s share bytes from 76",
    ],
    [
      "too few checksums",
      (body) => void Object.assign(body.files[0]!, { crc32: [] }),
      "0 block checksums, its 88 bytes need 1",
    ],
    [
      "too large a shape",
      (body) => void body.tensors.push({ name: "x", dtype: "bool", shape: [2 ** 40, 2 ** 40], chunks: [] }),
      "too large",
    ],
    ["ranks without values", (body) => void body.rankValues.pop(), "rank values: of 1 ranks, saved were 2"],
  ];
  test.each(faults)("with %s is refused", (_, change, message) => {
    expect(() => decodeManifest(forge(change))).toThrow(CheckpointError);
    expect(() => decodeManifest(forge(change))).toThrow(message);
  });

  const faults2: [string, (body: Loose<Body2>) => void, string][] = [
    [
      "a chunk cut short",
      (body) => void body.tensors[0]!.chunks.pop(),
      "tensors.0.chunks: 11 integers, a multiple of 6 is due",
    ],
    ["a file number too high", (body) => void body.tensors[0]!.chunks.splice(0, 1, 2), "file number 2 of 2"],
    ["a negative number", (body) => void body.tensors[0]!.chunks.splice(1, 1, -64), "tensors.0.chunks"],
    ["a fraction", (body) => void body.tensors[0]!.chunks.splice(2, 1, 0.5), "tensors.0.chunks"],
    [
      "a number beyond 2^53",
      (body) => void body.tensors[0]!.chunks.splice(1, 1, 2 ** 60),
      "tensors.0.chunks",
    ],
    [
      "sizes whose product overflows",
      (body) => void body.tensors[0]!.chunks.splice(4, 2, 2 ** 40, 2 ** 40),
      "outside shape [4,2]",
    ],
    [
      "checksums cut short",
      (body) => void Object.assign(body.files[0]!, { crc32: Uint8Array.of(1) }),
      "files.0.crc32: 1 bytes, a multiple of 4 is due",
    ],
    ["an overlap", (body) => void body.tensors[0]!.chunks.splice(8, 1, 1), "overlap"],
    [
      "33 axes",
      (body) => void Object.assign(body.tensors[0]!, { shape: Array(33).fill(1) }),
      "tensors.0.shape",
    ],
  ];
  test.each(faults2)("of version 2 with %s is refused", (_, change, message) => {
    expect(() => decodeManifest(forge2(change))).toThrow(CheckpointError);
    expect(() => decodeManifest(forge2(change))).toThrow(message);
  });

  test("with several faults lists them all", () => {
    const bytes = forge((body) => {
      body.tensors[0]!.chunks.pop();
      body.rankValues.pop();
    });
    expect(() => decodeManifest(bytes)).toThrow(
      "manifest.msgpack: rank values: of 1 ranks, saved were 2; tensor w: chunks cover 4 of 8 elements",
    );
  });
});

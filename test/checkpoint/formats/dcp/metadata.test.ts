import { describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { DCP_CLASSES, decodeMetadata } from "../../../../checkpoint/formats/dcp/metadata.ts";
import { metadataFaults } from "../../../../checkpoint/formats/dcp/metadata-check.ts";
import { encodeMetadata, type WrittenTensor } from "../../../../checkpoint/formats/dcp/metadata-writer.ts";
import {
  call,
  dict,
  object,
  type PickleDict,
  type PickleObject,
  type PickleValue,
  tuple,
} from "../../../../checkpoint/formats/pickle/values.ts";
import { writePickle } from "../../../../checkpoint/formats/pickle/writer.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";
import { dcpFixture } from "./fixtures.ts";

/** Chunks of a few bytes, in items of ten. */
const box = (offsets: readonly number[], sizes: readonly number[], offset: number) => ({
  offsets,
  sizes,
  rank: 0,
  offset,
  length: 10,
});

const TENSOR: WrittenTensor = {
  name: "model.w",
  path: ["model", "w"],
  dtype: "int8",
  shape: [4, 2],
  chunks: [box([0, 0], [2, 2], 0), box([2, 0], [2, 2], 10)],
};
const VALUE = { name: "lr", path: ["lr"], rank: 0, offset: 20, length: 5 };
const LENGTHS: ReadonlyMap<string, number> = new Map([["__0_0.distcp", 25]]);

const encoded = (): PickleObject => encodeMetadata([TENSOR], [VALUE]) as PickleObject;
const decode = (value: PickleValue) => decodeMetadata(writePickle(value));

/** The value of a key of a dict. */
function member(value: PickleValue, key: string): PickleValue {
  return (value as PickleDict).entries.find(([name]) => name === key)![1];
}

/** Changes a key of a dict. */
function put(value: PickleValue, key: string, to: PickleValue): void {
  const entries = (value as PickleDict).entries;
  const at = entries.findIndex(([name]) => name === key);
  entries.splice(at < 0 ? entries.length : at, at < 0 ? 0 : 1, [key, to]);
}

test("metadata comes back as it was written", () => {
  const metadata = decode(encoded());
  expect(metadata).toEqual({
    tensors: [
      {
        name: "model.w",
        dtype: "int8",
        shape: [4, 2],
        chunks: [
          { offsets: [0, 0], sizes: [2, 2], file: "__0_0.distcp", begin: 0, end: 10 },
          { offsets: [2, 0], sizes: [2, 2], file: "__0_0.distcp", begin: 10, end: 20 },
        ],
      },
    ],
    values: [{ name: "lr", file: "__0_0.distcp", begin: 20, end: 25 }],
    paths: new Map([
      ["model.w", ["model", "w"]],
      ["lr", ["lr"]],
    ]),
  });
  expect(metadataFaults(metadata, LENGTHS)).toEqual([]);
});

test("what older versions leave out, and what they call otherwise, is read", () => {
  const old = encoded();
  for (const key of ["version", "storage_meta"]) {
    const entries = (old.state as PickleDict).entries;
    entries.splice(
      entries.findIndex(([name]) => name === key),
      1,
    );
  }
  put(old.state!, "planner_data", null);
  const tensor = member(member(old.state!, "state_dict_metadata"), "model.w") as PickleObject;
  const properties = member(tensor.state!, "properties") as PickleObject;
  put(
    tensor.state!,
    "properties",
    object("torch.distributed._shard.sharded_tensor.metadata TensorProperties", properties.state!),
  );
  expect(decode(old)).toMatchObject({ tensors: [{ dtype: "int8" }], paths: new Map() });
});

test("the path that a checkpoint was saved to is passed over, of any kind", () => {
  for (const name of ["pathlib PosixPath", "pathlib._local WindowsPath"]) {
    const value = encoded();
    put(
      value.state!,
      "storage_meta",
      object(DCP_CLASSES.storageMeta, dict([["checkpoint_id", call(name, "/", "secret")]])),
    );
    expect(JSON.stringify(decode(value))).not.toContain("secret");
  }
});

describe("metadata is refused", () => {
  const storage = (value: PickleObject): PickleDict["entries"] =>
    (member(value.state!, "storage_data") as PickleDict).entries;
  /** The stored place of the first item. */
  const place = (value: PickleObject): PickleValue => (storage(value)[0]![1] as PickleObject).state!;
  const tensor = (value: PickleObject): PickleValue =>
    (member(member(value.state!, "state_dict_metadata"), "model.w") as PickleObject).state!;
  const chunk = (value: PickleObject): PickleValue =>
    ((member(tensor(value), "chunks") as PickleValue[])[0] as PickleObject).state!;
  const size = (...extents: PickleValue[]): PickleValue => call("torch Size", tuple(...extents));

  const names = [
    "../__0_0.distcp",
    "/etc/passwd",
    "__0_0.distcp/../x",
    "a/__0_0.distcp",
    "a\\__0_0.distcp",
    "..",
    ".",
    "",
    "__0_0.distcp\0",
    "\0",
    "__0_0.distcp ",
    " __0_0.distcp",
    "__0_0.distcp.",
    "__0_0",
    "__0.distcp",
    "__-1_0.distcp",
    "__0_0.DISTCP",
    "C:__0_0.distcp",
    "C:\\__0_0.distcp",
    "\\\\host\\share\\__0_0.distcp",
    "__0_0.distcp\n",
    "con",
    "__０_0.distcp",
    "__1e3_0.distcp",
    "__0x1_0.distcp",
    "__0_0.distcp/",
    "~/__0_0.distcp",
    "file:///__0_0.distcp",
    "__9999999999_0.distcp",
    "%2e%2e/__0_0.distcp",
    ".metadata",
    "__0_0.distcp%00",
    "__0_\u00660.distcp",
  ];
  test.each(names.map((name) => [JSON.stringify(name), name] as const))("with the file %s", (_, name) => {
    const value = encoded();
    put(place(value), "relative_path", name);
    expect(() => decode(value)).toThrow(/allowed are __<rank>_<number>.distcp/);
  });

  const changes: readonly (readonly [string, (value: PickleObject) => void, RegExp])[] = [
    ["of another version", (v) => put(v.state!, "version", "2.0.0"), /its version is "2.0.0"/],
    ["without storage", (v) => put(v.state!, "storage_data", null), /a None where a dict/],
    ["without tensors", (v) => put(v.state!, "state_dict_metadata", 7), /a int where a dict/],
    [
      "with a chunk that is not stored",
      (v) => void storage(v).shift(),
      /nothing is stored for its chunk at \[0,0\]/,
    ],
    ["with a value that is not stored", (v) => void storage(v).pop(), /lr: nothing is stored for it/],
    ["with two items for one place", (v) => void storage(v).push(storage(v)[0]!), /two items for one place/],
    [
      "with compressed items",
      (v) => put(place(v), "transform_descriptors", ["stream.zstd/1"]),
      /it is transformed/,
    ],
    ["with a negative offset", (v) => put(place(v), "offset", -1), /offset is -1/],
    [
      "with a length of a float",
      (v) => put(place(v), "length", { kind: "float", value: 1 }),
      /length is a float/,
    ],
    ["with an item beyond 2^53", (v) => put(place(v), "offset", Number.MAX_SAFE_INTEGER), /beyond 2\^53/],
    ["with an offset of 2^63", (v) => put(place(v), "offset", 2n ** 63n), /9223372036854775808/],
    ["with a negative extent", (v) => put(tensor(v), "size", size(-1, 2)), /an extent is -1/],
    ["with a shape that is no Size", (v) => put(tensor(v), "size", tuple(4, 2)), /where a torch Size/],
    [
      "with forty dimensions",
      (v) => put(tensor(v), "size", size(...Array<number>(40).fill(1))),
      /40 dimensions/,
    ],
    ["with chunks that are no list", (v) => put(tensor(v), "chunks", null), /no list of chunks/],
    [
      "with chunks of another class",
      (v) => put(tensor(v), "chunks", [object(DCP_CLASSES.bytes)]),
      /where a .*ChunkStorageMetadata/,
    ],
    [
      "with a field that comes twice",
      (v) => void (chunk(v) as PickleDict).entries.push(["sizes", size(1)]),
      /comes twice/,
    ],
    [
      "with a name that is no text",
      (v) => void storage(v).push([object(DCP_CLASSES.index, dict([["fqn", 1]])), 2]),
      /name of an item is a int/,
    ],
  ];
  test.each(changes)("%s", (_, change, problem) => {
    const value = encoded();
    change(value);
    expect(() => decode(value)).toThrow(CheckpointError);
    expect(() => decode(value)).toThrow(problem);
  });

  test("with a layout or dtype that cannot be carried", () => {
    const layouts: readonly (readonly [string, PickleValue, RegExp])[] = [
      [
        "torch float32",
        call("torch.serialization _get_layout", "torch.sparse_coo"),
        /layout "torch.sparse_coo"/,
      ],
      ["torch complex128", call("torch.serialization _get_layout", "torch.strided"), /dtype complex128/],
      ["torch FloatStorage", 7, /where a torch.serialization _get_layout/],
    ];
    for (const [dtype, layout, problem] of layouts) {
      const value = encoded();
      const state = tuple(
        { kind: "global", name: dtype },
        layout,
        false,
        call(DCP_CLASSES.memoryFormat, 0),
        false,
      );
      put(tensor(value), "properties", object(DCP_CLASSES.properties, state));
      expect(() => decode(value)).toThrow(problem);
    }
  });

  test("when it is no pickle, or one of something else", async () => {
    const real = new Uint8Array(await readFile(join(dcpFixture("dtypes"), ".metadata")));
    for (const bytes of [
      new Uint8Array(0),
      real.subarray(0, 1000),
      writePickle(7),
      writePickle(object(DCP_CLASSES.chunk)),
    ]) {
      expect(() => decodeMetadata(bytes)).toThrow(/^\.metadata: /);
    }
  });
});

describe("faults between parts are found", () => {
  const chunks = (...boxes: WrittenTensor["chunks"]) => ({ ...TENSOR, chunks: boxes });
  const faultsOf = (tensors: readonly WrittenTensor[], lengths = LENGTHS): readonly string[] =>
    metadataFaults(decode(encodeMetadata(tensors, [])), lengths);
  const [top, bottom] = TENSOR.chunks as [ReturnType<typeof box>, ReturnType<typeof box>];

  test.each([
    ["a hole", [chunks(top)], /chunks cover 4 of 8 elements/],
    ["an overlap", [chunks(top, box([1, 0], [3, 2], 10))], /chunks \[0:2, 0:2\] and \[1:4, 0:2\] overlap/],
    ["a chunk outside", [chunks(top, box([2, 0], [3, 2], 10))], /\[2:5, 0:2\] is outside shape \[4,2\]/],
    ["a chunk of other dimensions", [chunks(top, box([2], [2], 10))], /outside shape/],
    [
      "a chunk that is larger than its item",
      [{ ...TENSOR, shape: [2 ** 40], chunks: [box([0], [2 ** 40], 0)] }],
      /does not fit into its 10 bytes/,
    ],
    ["shared bytes", [chunks(top, { ...bottom, offset: 5 })], /model.w and model.w share bytes from 5/],
    ["a shape that overflows", [{ ...TENSOR, shape: [2 ** 52, 2 ** 52], chunks: [] }], /is too large/],
    ["a file that is missing", [chunks(top, { ...bottom, rank: 3 })], /__3_0.distcp is missing/],
    [
      "an item behind the end",
      [chunks(top, { ...bottom, length: 99 })],
      /ends at byte 109 of __0_0.distcp, which has 25/,
    ],
    ["an empty name", [{ ...TENSOR, name: "" }], /allowed are 1 to 4096 characters/],
  ] as const)("%s", (_, tensors, problem) => {
    expect(faultsOf(tensors).join("; ")).toMatch(problem);
  });

  test("but empty chunks, several at one place, are none", () => {
    const empty = box([4, 0], [0, 2], 20);
    expect(faultsOf([chunks(top, bottom, { ...empty, length: 5 }, { ...empty, length: 5 })])).toEqual([]);
  });
});

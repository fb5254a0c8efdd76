import { describe, expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { dcpFormat } from "../../../../checkpoint/formats/dcp/format.ts";
import { DCP_CLASSES, type DcpMetadata } from "../../../../checkpoint/formats/dcp/metadata.ts";
import { openDcp } from "../../../../checkpoint/formats/dcp/reader.ts";
import { type DcpState, writeDcp } from "../../../../checkpoint/formats/dcp/writer.ts";
import type { GlobalUse } from "../../../../checkpoint/formats/pickle/reader.ts";
import { readPickle } from "../../../../checkpoint/formats/pickle/reader.ts";
import type { PickleDict, PickleValue } from "../../../../checkpoint/formats/pickle/values.ts";
import { bytesOf, hostArray, STORED_DTYPES } from "../../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";
import type { Box } from "../../../../core/contracts/shard.ts";
import { inFolder } from "../../../support/command.ts";
import { randomLayout, tensorsArbitrary } from "../../layouts.ts";
import { cutBox, type FullTensor } from "../../states.ts";
import { DCP_FIXTURES, dcpFixture, stateOf } from "./fixtures.ts";

/** Reads any global: to compare two pickles, not to decode them. */
const ANY = {
  has: () => true,
  get: (name: string): GlobalUse => {
    if (/ (Size|_get_layout|_MEM_FORMAT_ENCODING|PosixPath)$/.test(name)) return "call";
    return name.startsWith("torch ") ? "constant" : "object";
  },
} as unknown as ReadonlyMap<string, GlobalUse>;

/** The objects of a pickle as text, with classes, fields and their order; where items lie and where it was saved to left out. */
function structure(value: PickleValue): unknown {
  if (value === null || typeof value !== "object" || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map(structure);
  switch (value.kind) {
    case "dict": {
      const entries = value.entries.map(
        ([key, item]) => [JSON.stringify(structure(key)), structure(item)] as const,
      );
      // The order of names says in which order ranks sent their plans; that of fields is the class's.
      return entries.length > 0 && entries[0]![0].startsWith('"') ? sortNames(entries) : entries.sort();
    }
    case "object":
      if (value.type === DCP_CLASSES.storageMeta) return null;
      if (value.type === DCP_CLASSES.storage) return { type: value.type, fields: fieldsOf(value.state!) };
      return { type: value.type, state: value.state === undefined ? "none" : structure(value.state) };
    case "tuple":
      return { tuple: value.items.map(structure) };
    case "call":
      return { call: value.callee, args: value.args.map(structure) };
    default:
      return value;
  }
}

const FIELDS = new Set(["properties", "offsets", "fqn", "state_dict_metadata"]);

function sortNames(entries: (readonly [string, unknown])[]): unknown {
  return FIELDS.has(JSON.parse(entries[0]![0])) ? entries : entries.sort(([a], [b]) => (a < b ? -1 : 1));
}

function fieldsOf(state: PickleValue): readonly unknown[] {
  return (state as PickleDict).entries.map(([key]) => key);
}

async function structureOf(folder: string): Promise<unknown> {
  return structure(readPickle(new Uint8Array(await readFile(join(folder, ".metadata"))), ANY));
}

const byName = ({ tensors, values, paths }: DcpMetadata) => ({
  tensors: tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
  values: values.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
  paths,
});

describe.each(DCP_FIXTURES)("the checkpoint %s, written again", (name) => {
  test("has PyTorch's structure class by class, and files of the same lengths", async () => {
    await inFolder(async (folder) => {
      const [source, target] = [dcpFixture(name), join(folder, "dcp")];
      const reader = await openDcp(source);
      await writeDcp(target, await stateOf(reader), { overwrite: false });
      const again = await openDcp(target);
      expect(again.lengths).toEqual(reader.lengths);
      expect(again.metadata.paths).toEqual(reader.metadata.paths);
      expect(await structureOf(target)).toEqual(await structureOf(source));
      for (const tensor of reader.names) {
        expect(bytesOf(await again.read(tensor))).toEqual(bytesOf(await reader.read(tensor)));
      }
      for (const value of reader.metadata.values) {
        expect(await again.value(value.name)).toEqual(await reader.value(value.name));
      }
      await again.close();
      await reader.close();
    });
  });
});

test("items are PyTorch's byte for byte but for the number that tells files apart", async () => {
  await inFolder(async (folder) => {
    const [source, target] = [dcpFixture("dtypes"), join(folder, "dcp")];
    const reader = await openDcp(source);
    await writeDcp(target, await stateOf(reader), { overwrite: false });
    const again = await openDcp(target);
    expect(byName(again.metadata)).toEqual(byName(reader.metadata));
    const [ours, theirs] = await Promise.all(
      [target, source].map((path) => readFile(join(path, "__0_0.distcp"), "latin1")),
    );
    for (const { name, chunks } of reader.metadata.tensors) {
      // Ours are row-major always.
      if (["t.transposed", "t.channels_last"].includes(name)) continue;
      const { begin, end } = chunks[0]!;
      expect(withoutId(ours!.slice(begin, end))).toBe(withoutId(theirs!.slice(begin, end)));
    }
    await again.close();
    await reader.close();
  });
});

/** An item without its serialization id and the checksums of it, behind it and in the directory. */
function withoutId(item: string): string {
  const name = "archive/.data/serialization_id";
  const id = /[0-9]{40}/.exec(item)!;
  const listed = item.lastIndexOf(name);
  const crc = listed - 46 + 16;
  return item.slice(0, id.index) + item.slice(id.index + 48, crc) + item.slice(crc + 4);
}

describe("any state", () => {
  const state = (tensors: readonly FullTensor[], worldSize: number, seed: number): DcpState => {
    const layout = randomLayout(worldSize, seed);
    return {
      worldSize,
      values: [{ name: "train.step", path: ["train", "step"], value: seed, rank: worldSize - 1 }],
      tensors: tensors.map((tensor) => ({
        ...tensor,
        path: ["model", tensor.name.slice("model.".length)],
        boxes: Array.from({ length: worldSize }, (_, rank) =>
          layout(tensor, rank).map((box) => ({ ...box, rank })),
        ).flat(),
        read: async (box) => {
          const bytes = cutBox(tensor, box);
          return hostArray(tensor.dtype, bytes.buffer, 0, bytes.length / STORED_DTYPES[tensor.dtype].bytes);
        },
      })),
    };
  };

  test("in any layout comes back bitwise", async () => {
    await inFolder(async (folder) => {
      let run = 0;
      await fc.assert(
        fc.asyncProperty(
          tensorsArbitrary,
          fc.integer({ min: 1, max: 4 }),
          fc.integer(),
          async (tensors, world, seed) => {
            const path = join(folder, String(run++));
            await writeDcp(path, state(tensors, world, seed), { overwrite: false });
            const reader = await openDcp(path);
            try {
              expect([...reader.lengths.keys()]).toHaveLength(world);
              for (const { name, dtype, shape, bytes } of tensors) {
                expect(reader.info(name)).toMatchObject({ dtype, shape });
                expect(bytesOf(await reader.read(name))).toEqual(bytes);
              }
              expect(await reader.value("train.step")).toBe(seed);
              expect(await reader.verify()).toEqual([]);
            } finally {
              await reader.close();
            }
          },
        ),
        { numRuns: 30 },
      );
    });
  });

  test("appears whole or not at all, and replaces nothing unless asked to", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "dcp");
      const good = state([], 1, 1);
      const broken: DcpState = {
        ...good,
        tensors: [
          {
            name: "w",
            path: ["w"],
            dtype: "float32",
            shape: [2],
            boxes: [{ offsets: [0], sizes: [2], rank: 0 }],
            read: async () => new Float32Array(1),
          },
        ],
      };
      await expect(writeDcp(path, broken, { overwrite: false })).rejects.toThrow(
        /w: box \[0:2\] gave 4 bytes, due are 8/,
      );
      expect(await readdir(folder)).toEqual([]);
      await writeDcp(path, good, { overwrite: false });
      await expect(writeDcp(path, state([], 2, 2), { overwrite: false })).rejects.toThrow(
        /it exists already/,
      );
      await expect(writeDcp(path, broken, { overwrite: true })).rejects.toBeInstanceOf(CheckpointError);
      expect((await readdir(path)).sort()).toEqual([".metadata", "__0_0.distcp"]);
      await writeDcp(path, state([], 2, 2), { overwrite: true });
      expect((await readdir(path)).sort()).toEqual([".metadata", "__0_0.distcp", "__1_0.distcp"]);
      expect(await readdir(folder)).toEqual(["dcp"]);
    });
  });

  test("that torch would load without a word and wrongly is not written", async () => {
    await inFolder(async (folder) => {
      const read = async (box: Box) => new Int8Array(box.sizes[0]!);
      const tensor = { name: "w", path: ["w"], dtype: "int8", shape: [4], read } as const;
      const whole = { offsets: [0], sizes: [4], rank: 0 };
      const wrong: readonly (readonly [DcpState, RegExp])[] = [
        [
          { worldSize: 1, values: [], tensors: [{ ...tensor, boxes: [{ ...whole, sizes: [3] }] }] },
          /cover 3 of 4 elements/,
        ],
        [
          {
            worldSize: 1,
            values: [],
            tensors: [{ ...tensor, boxes: [whole, { ...whole, offsets: [1], sizes: [2] }] }],
          },
          /overlap/,
        ],
        [
          { worldSize: 1, values: [], tensors: [{ ...tensor, boxes: [{ ...whole, rank: 1 }] }] },
          /goes to rank 1 of 1/,
        ],
        [
          {
            worldSize: 1,
            values: [{ ...tensor, value: 1, rank: 0 }],
            tensors: [{ ...tensor, boxes: [whole] }],
          },
          /w: listed twice/,
        ],
      ];
      for (const [state, problem] of wrong) {
        await expect(writeDcp(join(folder, "dcp"), state, { overwrite: false })).rejects.toThrow(problem);
      }
      expect(await readdir(folder)).toEqual([]);
    });
  });

  test("is a format that the registry knows by name", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "dcp");
      const read = async () => Int32Array.of(1, 2);
      await dcpFormat.write(path, [{ name: "w", dtype: "int32", shape: [2], read }], { note: "n" });
      const reader = await dcpFormat.open(path);
      expect([...((await reader.read("w", { offsets: [1], sizes: [1] })) as Int32Array)]).toEqual([2]);
      await reader.close();
    });
  });
});

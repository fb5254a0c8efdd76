import { describe, expect, test } from "bun:test";
import { copyFile, mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { volume } from "../../../../checkpoint/boxes.ts";
import { safetensorsFormat } from "../../../../checkpoint/formats/safetensors/format.ts";
import { parseIndex } from "../../../../checkpoint/formats/safetensors/index-file.ts";
import { openWeights } from "../../../../checkpoint/formats/safetensors/sharded-reader.ts";
import type { NamedTensor } from "../../../../core/contracts/checkpointer.ts";
import { bytesOf, newHostArray } from "../../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";
import type { Box } from "../../../../core/contracts/shard.ts";
import { inFolder } from "../../../support/command.ts";
import { tensorsArbitrary } from "../../layouts.ts";
import { type FullTensor, patternTensor } from "../../states.ts";

function named(tensor: FullTensor): NamedTensor {
  return {
    ...tensor,
    async read() {
      const host = newHostArray(tensor.dtype, volume(tensor.shape));
      bytesOf(host).set(tensor.bytes);
      return host;
    },
  };
}

const index = (map: unknown, rest: object = {}): Uint8Array =>
  new TextEncoder().encode(
    JSON.stringify({ metadata: { total_size: 1, note: [null, { a: -1.5e3 }] }, weight_map: map, ...rest }),
  );

describe("sharded weights", () => {
  test("come back bitwise from files of any size limit, by folder and by index", async () => {
    const limit = fc.integer({ min: 1, max: 400 });
    await inFolder(async (folder) => {
      let run = 0;
      await fc.assert(
        fc.asyncProperty(tensorsArbitrary, limit, async (tensors, maxShardBytes) => {
          const path = join(folder, String(run++), "model.safetensors");
          await mkdir(join(path, ".."));
          await safetensorsFormat.write(path, tensors.map(named), { format: "pt" }, { maxShardBytes });
          const files = (await readdir(join(path, ".."))).sort();
          const single = files.includes("model.safetensors");
          for (const place of [join(path, ".."), single ? path : `${path}.index.json`]) {
            const reader = await openWeights(place);
            try {
              expect(reader.names.toSorted()).toEqual(tensors.map(({ name }) => name).sort());
              expect([...reader.metadata]).toEqual([["format", "pt"]]);
              for (const tensor of tensors)
                expect(bytesOf(await reader.read(tensor.name))).toEqual(tensor.bytes);
              if (!single)
                expect(files).toEqual([...reader.files.keys(), "model.safetensors.index.json"].sort());
            } finally {
              await reader.close();
            }
          }
        }),
        { numRuns: 30 },
      );
    });
  });

  test("keep their order, fill files up to the limit, and say how much there is", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "model.safetensors");
      const sizes = [3, 3, 5, 20, 1, 1];
      const tensors = sizes.map((size, i) => named(patternTensor(`t${i}`, "float32", [size])));
      await safetensorsFormat.write(path, [tensors[0]!], {});
      await safetensorsFormat.write(path, tensors, {}, { maxShardBytes: 24 });
      const text = await Bun.file(`${path}.index.json`).json();
      expect(text).toEqual({
        metadata: { total_parameters: 33, total_size: 132 },
        weight_map: {
          t0: "model-00001-of-00004.safetensors",
          t1: "model-00001-of-00004.safetensors",
          t2: "model-00002-of-00004.safetensors",
          t3: "model-00003-of-00004.safetensors",
          t4: "model-00004-of-00004.safetensors",
          t5: "model-00004-of-00004.safetensors",
        },
      });
      // The file of the earlier write would be found in its place.
      expect(await readdir(folder)).not.toContain("model.safetensors");
      const twice = safetensorsFormat.write(
        path,
        [tensors[0]!, tensors[3]!, tensors[0]!],
        {},
        { maxShardBytes: 4 },
      );
      await expect(twice).rejects.toThrow(/a name comes twice/);
    });
  });

  test("are written one tensor at a time: the next is asked for when the last one is in the file", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "model.safetensors");
      const written: number[] = [];
      const tensors = [0, 1, 2, 3].map(
        (i): NamedTensor => ({
          name: `t${i}`,
          dtype: "uint8",
          shape: [1000],
          async read() {
            const [file] = await readdir(folder);
            written.push((await stat(join(folder, file!))).size);
            return new Uint8Array(1000).fill(i);
          },
        }),
      );
      await safetensorsFormat.write(path, tensors, {});
      const total = (await stat(path)).size;
      expect(written).toEqual([4000, 3000, 2000, 1000].map((left) => total - left));
    });
  });

  test("take a large tensor in parts where it can be read so", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "model.safetensors");
      const rows = 33 * 2 ** 20;
      const boxes: Box[] = [];
      const large: NamedTensor = {
        name: "large",
        dtype: "uint8",
        shape: [1, 2, rows],
        read: () => Promise.reject(new Error("it is too large")),
        async readBox(box) {
          boxes.push(box);
          return new Uint8Array(volume(box.sizes)).fill(boxes.length);
        },
      };
      await safetensorsFormat.write(path, [large, named(patternTensor("small", "int8", [3]))], {});
      expect(boxes).toEqual([0, 1].map((row) => ({ offsets: [0, row, 0], sizes: [1, 1, rows] })));
      const reader = await openWeights(path);
      const middle = await reader.read("large", { offsets: [0, 0, rows - 1], sizes: [1, 2, 1] });
      expect([...(middle as Uint8Array)]).toEqual([1, 2]);
      await reader.close();
    });
  });

  test("with a tensor that is not in its file, or a file that is not there, are refused", async () => {
    await inFolder(async (folder) => {
      await safetensorsFormat.write(
        join(folder, "a.safetensors"),
        [named(patternTensor("x", "int8", [1]))],
        {},
      );
      const open = async (map: unknown) => {
        await writeFile(join(folder, "model.safetensors.index.json"), index(map));
        const reader = await openWeights(folder);
        await reader.close();
        return reader.names;
      };
      expect(await open({ x: "a.safetensors" })).toEqual(["x"]);
      await expect(open({ x: "a.safetensors", y: "a.safetensors" })).rejects.toThrow(
        /1 tensors are not in their files, "y" in a.safetensors/,
      );
      await expect(open({ x: "b.safetensors" })).rejects.toThrow(CheckpointError);
      await copyFile(join(folder, "a.safetensors"), join(folder, "model.safetensors"));
      expect(await open({ x: "gone.safetensors" })).toEqual(["x"]);
      await expect(openWeights(join(folder, "none"))).rejects.toThrow(CheckpointError);
    });
  });
});

describe("an index", () => {
  test("is read in its order, whatever its metadata holds", () => {
    expect([...parseIndex(index({ b: "x.safetensors", a: "y.safetensors" }))]).toEqual([
      ["b", "x.safetensors"],
      ["a", "y.safetensors"],
    ]);
    expect(parseIndex(new TextEncoder().encode('\n{"weight_map": {}}\n')).size).toBe(0);
  });

  const names = [
    "../x.safetensors",
    "/x.safetensors",
    "a/x.safetensors",
    "a\\x.safetensors",
    "C:x.safetensors",
    "x.bin",
    "",
    ".safetensors",
    ".x.safetensors",
    "x.safetensors\0",
    "x\0.safetensors",
    "x.safetensors.",
    "con.safetensors",
    "LPT1.safetensors",
    "x?.safetensors",
    "x*.safetensors",
    `${"x".repeat(300)}.safetensors`,
    "a\n.safetensors",
  ];
  test.each(names.map((name) => [JSON.stringify(name), name] as const))(
    "that names the file %s is refused",
    (_, name) => {
      expect(() => parseIndex(index({ x: name }))).toThrow(/allowed are .safetensors files beside the index/);
    },
  );

  const texts: readonly (readonly [string, string])[] = [
    ["no JSON", "weights"],
    ["no object", "[]"],
    ["without a map", "{}"],
    ["whose map is a list", '{"weight_map":[]}'],
    ["with a number for a file", '{"weight_map":{"x":1}}'],
    ["with a tensor twice", '{"weight_map":{"x":"a.safetensors","x":"b.safetensors"}}'],
    ["with two maps", '{"weight_map":{},"weight_map":{}}'],
    ["with an empty name", '{"weight_map":{"":"a.safetensors"}}'],
    ["with something behind it", '{"weight_map":{}}{}'],
    ["that nests without end", `{"metadata":${"[".repeat(100_000)}`],
    ["with a bare word", '{"metadata":nul,"weight_map":{}}'],
    ["cut short", '{"weight_map":{"x":"a.safe'],
    ["that is no UTF-8", "\u0000"],
  ];
  test.each(texts)("%s is refused", (_, text) => {
    const bytes = text === "\u0000" ? Uint8Array.of(0x7b, 0xff) : new TextEncoder().encode(text);
    expect(() => parseIndex(bytes)).toThrow(CheckpointError);
  });
});

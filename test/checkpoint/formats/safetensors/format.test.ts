import { afterAll, describe, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { volume } from "../../../../checkpoint/boxes.ts";
import { safetensorsFormat } from "../../../../checkpoint/formats/safetensors/format.ts";
import { openSafetensors } from "../../../../checkpoint/formats/safetensors/reader.ts";
import type { NamedTensor } from "../../../../core/contracts/checkpointer.ts";
import { bytesOf, newHostArray } from "../../../../core/contracts/dtype.ts";
import { CheckpointError, ShapeError } from "../../../../core/contracts/errors.ts";
import type { Box } from "../../../../core/contracts/shard.ts";
import { generator, tensorsArbitrary } from "../../layouts.ts";
import { cutBox, type FullTensor, patternTensor } from "../../states.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-safetensors-"));
afterAll(() => rm(folder, { recursive: true, force: true }));
const path = join(folder, "t.safetensors");

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

function randomBox(shape: readonly number[], random: (below: number) => number): Box {
  const offsets = shape.map((extent) => random(extent + 1));
  return { offsets, sizes: shape.map((extent, d) => random(extent - offsets[d]! + 1)) };
}

describe("safetensors files", () => {
  test("what is written comes back bitwise, whole and by any box", async () => {
    await fc.assert(
      fc.asyncProperty(tensorsArbitrary, fc.integer(), async (tensors, seed) => {
        const random = generator(seed);
        await safetensorsFormat.write(path, tensors.map(named), { format: "pt" });
        const reader = await openSafetensors(path);
        expect(reader.header.dataBegin % 64).toBe(0);
        expect([...reader.header.metadata]).toEqual([["format", "pt"]]);
        expect(reader.names.toSorted()).toEqual(tensors.map((tensor) => tensor.name).sort());
        for (const tensor of tensors) {
          expect(reader.info(tensor.name)).toEqual({ dtype: tensor.dtype, shape: tensor.shape });
          expect(bytesOf(await reader.read(tensor.name))).toEqual(tensor.bytes);
          const box = randomBox(tensor.shape, random);
          expect(bytesOf(await reader.read(tensor.name, box))).toEqual(cutBox(tensor, box));
        }
        await reader.close();
      }),
      { numRuns: 40 },
    );
  });

  test("tensors are ordered by element size, then name, and equal input gives equal bytes", async () => {
    const tensors = [
      patternTensor("b", "uint8", [3]),
      patternTensor("z", "float64", [1]),
      patternTensor("a", "uint8", [1]),
      patternTensor("m", "float16", [1]),
    ];
    await safetensorsFormat.write(path, tensors.map(named), { b: "2", a: "1" });
    const first = await readFile(path);
    const json = first.subarray(8, 8 + Number(first.readBigUInt64LE(0))).toString();
    expect(json.trimEnd()).toBe(
      '{"__metadata__":{"a":"1","b":"2"},"z":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},' +
        '"m":{"dtype":"F16","shape":[1],"data_offsets":[8,10]},"a":{"dtype":"U8","shape":[1],"data_offsets":[10,11]},' +
        '"b":{"dtype":"U8","shape":[3],"data_offsets":[11,14]}}',
    );
    await safetensorsFormat.write(path, tensors.reverse().map(named), { a: "1", b: "2" });
    expect(await readFile(path)).toEqual(first);
  });

  test("a write that fails leaves the old file and nothing beside it", async () => {
    await safetensorsFormat.write(path, [named(patternTensor("a", "int32", [2]))], {});
    const before = await readFile(path);
    const bad = { ...named(patternTensor("b", "int32", [2])), read: async () => new Int32Array(1) };
    await expect(safetensorsFormat.write(path, [bad], {})).rejects.toThrow(
      "b has 4 bytes, its shape takes 8",
    );
    for (const name of ["", "__metadata__"]) {
      const tensor = named(patternTensor(name, "int32", [2]));
      await expect(safetensorsFormat.write(path, [tensor], {})).rejects.toThrow(CheckpointError);
    }
    const twice = named(patternTensor("t", "int32", [2]));
    await expect(safetensorsFormat.write(path, [twice, twice], {})).rejects.toThrow("comes twice");
    expect(await readFile(path)).toEqual(before);
    expect(await readdir(folder)).toEqual(["t.safetensors"]);
  });

  test("types that no host array has are listed and read as bytes only", async () => {
    const json = '{"f6":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}';
    const file = join(folder, "f6.safetensors");
    await writeFile(
      file,
      Buffer.concat([
        Buffer.from(BigUint64Array.of(BigInt(json.length)).buffer),
        Buffer.from(json),
        Buffer.of(1, 2, 3),
      ]),
    );
    const reader = await openSafetensors(file);
    expect(reader.header.tensors.get("f6")!.dtype).toBe("F6_E2M3");
    expect(await reader.readBytes("f6")).toEqual(Uint8Array.of(1, 2, 3));
    await expect(reader.read("f6")).rejects.toThrow(/f6 has dtype F6_E2M3/);
    await reader.close();
    await rm(file);
  });

  test("missing files, unknown names, boxes outside and files cut while open are refused", async () => {
    await expect(safetensorsFormat.open(join(folder, "absent"))).rejects.toThrow(CheckpointError);
    await expect(safetensorsFormat.open(folder)).rejects.toThrow(CheckpointError);
    await safetensorsFormat.write(path, [named(patternTensor("a", "int32", [2, 2]))], {});
    const reader = await safetensorsFormat.open(path);
    expect(reader.has("a")).toBe(true);
    expect(reader.has("toString")).toBe(false);
    await expect(reader.read("b")).rejects.toThrow(CheckpointError);
    await expect(reader.read("a", { offsets: [0, 1], sizes: [2, 2] })).rejects.toThrow(ShapeError);
    await expect(reader.read("a", { offsets: [0], sizes: [2] })).rejects.toThrow(ShapeError);
    await truncate(path, 70);
    await expect(reader.read("a")).rejects.toThrow(CheckpointError);
    await reader.close();
  });
});

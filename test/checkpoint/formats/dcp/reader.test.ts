import { describe, expect, test } from "bun:test";
import { cp, readFile, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeMetadata } from "../../../../checkpoint/formats/dcp/metadata.ts";
import { openDcp } from "../../../../checkpoint/formats/dcp/reader.ts";
import { toJson } from "../../../../checkpoint/formats/pickle/json.ts";
import { bytesOf } from "../../../../core/contracts/dtype.ts";
import { CheckpointError, ShapeError } from "../../../../core/contracts/errors.ts";
import { fixture, inFolder } from "../../../support/command.ts";
import { generator } from "../../layouts.ts";
import { cutBox } from "../../states.ts";
import { DCP_FIXTURES, dcpFixture, tensorsOf, valuesOf } from "./fixtures.ts";

describe.each(DCP_FIXTURES)("the checkpoint %s of PyTorch", (name) => {
  test("gives every tensor bitwise, whole and by random boxes", async () => {
    const reader = await openDcp(dcpFixture(name));
    const expected = await tensorsOf(fixture(`dcp/${name}/expected.safetensors`));
    expect(reader.names.toSorted()).toEqual([...expected.keys()].sort());
    const random = generator(7);
    for (const [key, tensor] of expected) {
      expect(reader.info(key)).toMatchObject({ dtype: tensor.dtype, shape: tensor.shape });
      expect(bytesOf(await reader.read(key))).toEqual(tensor.bytes);
      const offsets = tensor.shape.map((extent) => random(extent + 1));
      const box = { offsets, sizes: tensor.shape.map((extent, d) => random(extent - offsets[d]! + 1)) };
      expect(bytesOf(await reader.read(key, box))).toEqual(cutBox(tensor, box));
    }
    await reader.close();
  });

  test("gives every value", async () => {
    const reader = await openDcp(dcpFixture(name));
    const values: Record<string, unknown> = {};
    for (const value of reader.metadata.values) values[value.name] = toJson(await reader.value(value.name));
    expect(values).toEqual(await valuesOf(name));
    await reader.close();
  });

  test("is whole", async () => {
    const reader = await openDcp(dcpFixture(name));
    expect(await reader.verify()).toEqual([]);
    await reader.close();
  });
});

describe("the checkpoint of a trained model", () => {
  test("holds the final weights bitwise, and the optimizer's state under its names", async () => {
    const reader = await openDcp(fixture("gpt2-tiny/dcp"));
    const weights = await tensorsOf(fixture("gpt2-tiny/final.safetensors"));
    expect(weights.size).toBe(29);
    for (const [name, { shape, bytes }] of weights) {
      expect(bytesOf(await reader.read(`model.${name}`))).toEqual(bytes);
      // The head is tied to the embedding: it has no state of its own.
      if (name === "lm_head.weight") continue;
      for (const key of ["exp_avg", "exp_avg_sq"]) {
        expect(reader.info(`optim.state.${name}.${key}`)).toMatchObject({ dtype: "float32", shape });
      }
      expect(Number((await reader.read(`optim.state.${name}.step`))[0])).toBe(20);
    }
    expect(toJson(await reader.value("optim.param_groups.0.betas"))).toEqual([0.9, 0.95]);
    await reader.close();
  });

  test("has the same tensors in the same boxes when FSDP1 wrote it", async () => {
    const [one, two] = await Promise.all(
      ["dcp-fsdp1-FULL_SHARD", "dcp"].map(async (folder) =>
        decodeMetadata(new Uint8Array(await readFile(fixture(`gpt2-tiny/${folder}/.metadata`)))),
      ),
    );
    const boxes = ({ tensors }: typeof one & {}) =>
      Object.fromEntries(
        tensors.map(({ name, dtype, shape, chunks }) => [
          name,
          { dtype, shape, chunks: chunks.map(({ offsets, sizes }) => ({ offsets, sizes })) },
        ]),
      );
    expect(boxes(one!)).toEqual(boxes(two!));
  });
});

describe("a folder is refused", () => {
  const copy = async (folder: string): Promise<string> => {
    const target = join(folder, "dcp");
    await cp(dcpFixture("fsdp2-world2"), target, { recursive: true });
    return target;
  };

  test("without metadata, with links in the place of its files, with files missing or cut short", async () => {
    await inFolder(async (folder) => {
      await expect(openDcp(folder)).rejects.toBeInstanceOf(CheckpointError);
      const cut = await copy(folder);
      await truncate(join(cut, "__1_0.distcp"), 54_000);
      await expect(openDcp(cut)).rejects.toThrow(/ends at byte \d+ of __1_0.distcp, which has 54000/);
      await inFolder(async (other) => {
        const linked = await copy(other);
        const target = join(linked, "__0_0.distcp");
        await Bun.file(target).delete();
        await expect(openDcp(linked)).rejects.toThrow(/__0_0.distcp is missing/);
        await symlink(join(dcpFixture("fsdp2-world2"), "__0_0.distcp"), target);
        const reader = await openDcp(linked);
        await expect(reader.read("model.a.weight")).rejects.toThrow(/model.a.weight: open of/);
        await reader.close();
        await Bun.file(join(linked, ".metadata")).delete();
        await symlink(join(dcpFixture("fsdp2-world2"), ".metadata"), join(linked, ".metadata"));
        await expect(openDcp(linked)).rejects.toBeInstanceOf(CheckpointError);
      });
    });
  });

  test("when a changed byte of any tensor is met, and verify says where", async () => {
    await inFolder(async (folder) => {
      const path = await copy(folder);
      const file = join(path, "__0_0.distcp");
      const reader = await openDcp(path);
      const { chunks } = reader.tensor("model.a.weight");
      const first = chunks.find((chunk) => chunk.file === "__0_0.distcp")!;
      const bytes = await readFile(file);
      // Where the payload of every small item begins: behind four small records, at a multiple of 64.
      bytes[first.begin + 704]! ^= 1;
      await writeFile(file, bytes);
      await expect(reader.read("model.a.weight")).rejects.toThrow(
        /model.a.weight: .* does not match its checksum/,
      );
      const faults = await reader.verify();
      expect(faults).toHaveLength(1);
      expect(faults[0]!.file).toBe("__0_0.distcp");
      expect(faults[0]!.problem).toContain("model.a.weight [0:4, 0:5]");
      await reader.close();
    });
  });

  test("for names, values and boxes that are not there", async () => {
    const reader = await openDcp(dcpFixture("fsdp2-world2"));
    expect(reader.has("toString")).toBe(false);
    await expect(reader.read("model.none")).rejects.toThrow(CheckpointError);
    await expect(reader.value("model.a.weight")).rejects.toThrow(/no such value/);
    await expect(reader.read("model.a.weight", { offsets: [0, 0], sizes: [8, 1] })).rejects.toThrow(
      ShapeError,
    );
    await reader.close();
  });
});

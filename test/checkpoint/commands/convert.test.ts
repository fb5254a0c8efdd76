import { describe, expect, test } from "bun:test";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { call, dict, type PickleValue } from "../../../checkpoint/formats/pickle/values.ts";
import { writeTorchFile } from "../../../checkpoint/formats/torch/writer.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import { fixture, inFolder } from "../../support/command.ts";
import { DCP_FIXTURES, dcpFixture } from "../formats/dcp/fixtures.ts";
import { startService } from "../server/service.ts";
import { patternTensor } from "../states.ts";
import { type Content, command, contentOf, saveNative } from "./run.ts";

const what = ({ tensors, values, rankValues }: Content) => ({ tensors, values, rankValues });

async function convert(
  source: string,
  target: string,
  to: string,
  ...more: readonly string[]
): Promise<Content> {
  expect(await command("convert", source, target, "--to", to, ...more)).toMatchObject({ code: 0, err: [] });
  return await contentOf(target);
}

/** A native checkpoint as training leaves it: a value of the same name as the model's tensors, values of each rank. */
async function trained(folder: string): Promise<string> {
  const tensors = [
    patternTensor("model.h.0.weight", "float32", [5, 3]),
    patternTensor("model.h.0.scale", "bfloat16", [4]),
    patternTensor("optim.state.h.0.weight.exp_avg", "float32", [5, 3]),
    patternTensor("optim.state.h.0.weight.step", "float32", []),
  ];
  const values = {
    step: 7,
    model: { family: "gpt2", config: "{}" },
    scaler: null,
    "data.position": [1, 2.5],
  };
  await saveNative(join(folder, "run"), tensors, { worldSize: 3, values });
  return join(folder, "run");
}

describe("convert", () => {
  test.each(DCP_FIXTURES)("carries %s through every format and back, bitwise", async (name) => {
    await inFolder(async (folder) => {
      const at = (step: string): string => join(folder, step);
      const source = await contentOf(dcpFixture(name));
      const native = await convert(dcpFixture(name), at("native"), "native");
      expect(what(native)).toEqual({ ...what(source), rankValues: native.rankValues });
      // Boxes stay where they are.
      expect(native.chunks).toEqual(source.chunks);
      const again = await convert(at("native"), at("dcp"), "dcp");
      expect(what(again)).toEqual(what(source));
      expect(again.chunks).toEqual(source.chunks);
      const file = await convert(at("dcp"), at("weights"), "safetensors");
      expect(what(file)).toEqual(what(source));
      const back = await convert(at("weights"), at("back"), "dcp");
      expect(what(back)).toEqual(what(source));
      const direct = await convert(dcpFixture(name), at("direct"), "dcp");
      expect({ ...direct, chunks: {} }).toEqual({ ...source, chunks: {} });
      expect(direct.chunks).toEqual(source.chunks);
    });
  });

  test("brings a training checkpoint back with the values of every rank", async () => {
    await inFolder(async (folder) => {
      const run = await trained(folder);
      const source = await contentOf(run);
      expect(source.rankValues).toEqual([{ rank: 0 }, { rank: 1 }, { rank: 2 }]);
      for (const to of ["dcp", "safetensors", "native"]) {
        const there = await convert(run, join(folder, to), to);
        expect(there.tensors).toEqual(source.tensors);
        const back = await convert(join(folder, to), join(folder, `${to}-back`), "native");
        expect(what(back)).toEqual(what(source));
        expect(await readdir(join(folder, `${to}-back`))).toEqual(["step-00000007"]);
      }
    });
  });

  test("takes what accelerate saved, schedulers too, and tells what it cannot take", async () => {
    await inFolder(async (folder) => {
      const saved = join(folder, "ckpt");
      await cp(fixture("accelerate-fsdp2/ckpt"), saved, { recursive: true });
      const state = dict([
        ["last_epoch", 3],
        ["_last_lr", [{ kind: "float", value: 0.001 }]],
      ]);
      await torchFile(join(saved, "scheduler.bin"), state);
      const result = await command("convert", saved, join(folder, "dcp"), "--to", "dcp");
      expect(result.code).toBe(0);
      expect(result.err).toHaveLength(2);
      for (const line of result.err) expect(line).toMatch(/^left out random_states_[01].pkl: random states/);
      const [source, there] = [await contentOf(saved), await contentOf(join(folder, "dcp"))];
      expect(Object.keys(there.tensors)).toHaveLength(113);
      expect(what(there)).toEqual(what(source));
      expect(there.values).toMatchObject({ "scheduler.last_epoch": 3, "scheduler._last_lr": [0.001] });

      await torchFile(join(saved, "custom_checkpoint_0.pkl"), call("_codecs encode", 1));
      const refused = await command("convert", saved, join(folder, "other"), "--to", "dcp");
      expect(refused).toMatchObject({ code: 1, out: [] });
      expect(refused.err[0]).toMatch(/custom_checkpoint_0.pkl: .*--skip-unreadable leaves these out$/);
      const skipped = await command(
        "convert",
        saved,
        join(folder, "other"),
        "--to",
        "dcp",
        "--skip-unreadable",
      );
      expect(skipped.code).toBe(0);
      expect(skipped.err).toHaveLength(3);
    });
  });

  test("cuts weights into files when it is asked to", async () => {
    await inFolder(async (folder) => {
      const target = join(folder, "cut");
      const source = await contentOf(dcpFixture("dtypes"));
      expect(
        what(await convert(dcpFixture("dtypes"), target, "safetensors", "--max-shard-size", "0.2KB")),
      ).toEqual(what(source));
      expect((await readdir(target)).length).toBeGreaterThan(3);
      const bad = await command(
        "convert",
        dcpFixture("dtypes"),
        join(folder, "x"),
        "--to",
        "safetensors",
        "--max-shard-size",
        "big",
      );
      expect(bad).toMatchObject({ code: 1, err: [expect.stringContaining('given "big"')] });
    });
  });

  test("replaces nothing unless it is asked to", async () => {
    await inFolder(async (folder) => {
      for (const to of ["native", "dcp", "safetensors"]) {
        const target = join(folder, to);
        const first = await convert(dcpFixture("dtypes"), target, to, "--step", "3");
        const refused = await command("convert", dcpFixture("hsdp-2x2"), target, "--to", to, "--step", "3");
        expect(refused).toMatchObject({
          code: 1,
          out: [],
          err: [expect.stringMatching(/^error: cannot write .*--overwrite/)],
        });
        expect(what(await contentOf(target))).toEqual(what(first));
        const second = await convert(dcpFixture("hsdp-2x2"), target, to, "--step", "3", "--overwrite");
        expect(what(second)).toMatchObject({ tensors: (await contentOf(dcpFixture("hsdp-2x2"))).tensors });
        expect((await readdir(folder)).filter((name) => name.startsWith("."))).toEqual([]);
      }
    });
  });

  test("replaces a checkpoint, itself too, only when the new one is whole", async () => {
    await inFolder(async (folder) => {
      const run = await trained(folder);
      const before = await contentOf(run);
      const names = await readdir(run);
      expect(what(await convert(run, run, "native", "--overwrite"))).toEqual(what(before));
      expect(await readdir(run)).toEqual(names);
      const damaged = join(folder, "damaged");
      await cp(run, damaged, { recursive: true });
      const file = join(damaged, names[0]!, "rank-00000.safetensors");
      const bytes = await readFile(file);
      bytes[bytes.length - 1]! ^= 1;
      await writeFile(file, bytes);
      expect(await command("convert", damaged, run, "--to", "native", "--overwrite")).toMatchObject({
        code: 1,
        err: [expect.stringContaining("does not match its checksum")],
      });
      expect(await readdir(run)).toEqual(names);
      expect(what(await contentOf(run))).toEqual(what(before));
    });
  });

  test("replaces a checkpoint of a service, itself too", async () => {
    await inFolder(async (folder) => {
      const run = await trained(folder);
      const service = await startService();
      try {
        const url = `${service.url}/runs/a`;
        await convert(run, url, "native");
        for (const source of [run, url]) {
          expect(what(await convert(source, url, "native", "--overwrite"))).toEqual(
            what(await contentOf(run)),
          );
          expect(await httpStore(url).list()).toEqual(["step-00000007"]);
        }
        expect((await command("verify", url)).code).toBe(0);
      } finally {
        await service.close();
      }
    });
  });

  test("says in one line what is wrong with its arguments", async () => {
    await inFolder(async (folder) => {
      const lines = async (...argv: readonly string[]) => await command("convert", ...argv);
      const target = join(folder, "x");
      expect((await lines(dcpFixture("dtypes"), target)).err[0]).toContain(
        "--to is missing, allowed are native, safetensors, dcp",
      );
      expect((await lines(dcpFixture("dtypes"), target, "--to", "zip")).err[0]).toContain('"zip"');
      expect((await lines(join(folder, "none"), target, "--to", "dcp")).err[0]).toContain("nothing is there");
      await writeFile(join(folder, "note.txt"), "hello");
      expect((await lines(join(folder, "note.txt"), target, "--to", "dcp")).err[0]).toContain(
        "note.txt is of another kind",
      );
      expect((await lines(folder, target, "--to", "dcp")).err[0]).toContain("is of another kind");
      expect(await readdir(folder)).toEqual(["note.txt"]);
    });
  });
});

async function torchFile(path: string, value: PickleValue): Promise<void> {
  const parts: Uint8Array[] = [];
  await writeTorchFile(async (bytes) => void parts.push(bytes.slice()), value);
  await writeFile(path, Buffer.concat(parts));
}

import { expect, test } from "bun:test";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeDcp } from "../../../checkpoint/formats/dcp/writer.ts";
import { openSafetensors } from "../../../checkpoint/formats/safetensors/reader.ts";
import { fixture, inFolder } from "../../support/command.ts";
import { dcpFixture, tensorsOf } from "../formats/dcp/fixtures.ts";
import { startService } from "../server/service.ts";
import { command, contentOf } from "./run.ts";

const merged = fixture("accelerate-fsdp2/merged/model.safetensors");

test("an accelerate folder merges into what accelerate makes of it", async () => {
  await inFolder(async (folder) => {
    const result = await command("merge-weights", fixture("accelerate-fsdp2/ckpt"), folder);
    expect(result).toMatchObject({ code: 0, err: [] });
    const file = join(folder, "model.safetensors");
    expect(await tensorsOf(file)).toEqual(new Map([...(await tensorsOf(merged))].sort()) as never);
    const [ours, theirs] = await Promise.all([file, merged].map((path) => openSafetensors(path)));
    expect([...ours!.header.metadata]).toEqual([...theirs!.header.metadata]);
    await ours!.close();
    await theirs!.close();
  });
});

test("every format of one state merges into the same file", async () => {
  await inFolder(async (folder) => {
    const source = fixture("gpt2-tiny/dcp");
    await command("convert", source, join(folder, "native"), "--to", "native");
    const files = await Promise.all(
      [source, join(folder, "native"), join(folder, "native", "step-00000000")].map(async (from, i) => {
        const out = join(folder, `${i}.safetensors`);
        expect(await command("merge-weights", from, out)).toMatchObject({ code: 0, err: [] });
        return Buffer.from(await Bun.file(out).arrayBuffer());
      }),
    );
    const weights = await tensorsOf(fixture("gpt2-tiny/final.safetensors"));
    expect(await tensorsOf(join(folder, "0.safetensors"))).toEqual(weights);
    for (const file of files) expect(file.equals(files[0]!)).toBe(true);
    // Names of a weights file are its own: nothing is taken from them.
    await command("merge-weights", fixture("llama-tiny/model"), join(folder, "llama"));
    const llama = await contentOf(join(folder, "llama"));
    expect(llama.tensors).toEqual((await contentOf(fixture("llama-tiny/model"))).tensors);
    expect(Object.keys(llama.tensors)).toContain("model.norm.weight");
  });
});

test("a checkpoint in any registered store merges by its location", async () => {
  await inFolder(async (folder) => {
    await command("convert", dcpFixture("hsdp-2x2"), "memory:merge-weights", "--to", "native", "--step", "4");
    const weights = [];
    for (const location of [
      "memory:merge-weights",
      "memory:merge-weights/step-00000004",
      dcpFixture("hsdp-2x2"),
    ]) {
      expect(await command("merge-weights", location, folder, "--overwrite")).toMatchObject({
        code: 0,
        err: [],
      });
      weights.push((await contentOf(folder)).tensors);
    }
    expect(Object.keys(weights[0]!)).toHaveLength(7);
    expect(weights[0]).toEqual(weights[2]!);
    expect(weights[1]).toEqual(weights[2]!);
  });
});

test("a checkpoint behind a service merges by its URL, and what is not there is told in a line", async () => {
  const service = await startService();
  try {
    await inFolder(async (folder) => {
      const run = `${service.url}/runs/one`;
      expect(
        (await command("convert", dcpFixture("hsdp-2x2"), run, "--to", "native", "--step", "3")).code,
      ).toBe(0);
      await command("merge-weights", dcpFixture("hsdp-2x2"), join(folder, "near"));
      const near = (await contentOf(join(folder, "near"))).tensors;
      for (const [i, location] of [run, `${run}/step-00000003`].entries()) {
        const far = join(folder, String(i));
        const { code, out } = await command("merge-weights", location, far);
        expect({ code, out }).toEqual({
          code: 0,
          out: [expect.stringContaining(`${run}/step-00000003 (native): 7 tensors`)],
        });
        expect((await contentOf(far)).tensors).toEqual(near);
      }
      const none = await command("merge-weights", `${service.url}/runs/two`, join(folder, "none"));
      expect(none).toMatchObject({ code: 1, err: [expect.stringContaining("nothing is there")] });
    });
    expect(service.errors).toEqual([]);
  } finally {
    await service.close();
  }
});

test("the only key of a state is its model, whatever it is called", async () => {
  await inFolder(async (folder) => {
    expect((await command("merge-weights", dcpFixture("dtypes"), folder)).code).toBe(0);
    const whole = await tensorsOf(fixture("dcp/dtypes/expected.safetensors"));
    const merged = await tensorsOf(join(folder, "model.safetensors"));
    expect([...merged.keys()].map((name) => `t.${name}`).sort()).toEqual([...whole.keys()].sort());
  });
});

test("what has no model is refused, and nothing is replaced unless it is asked for", async () => {
  await inFolder(async (folder) => {
    const read = async () => Int8Array.of(1);
    const tensor = {
      dtype: "int8",
      shape: [1],
      boxes: [{ offsets: [0], sizes: [1], rank: 0 }],
      read,
    } as const;
    const other = { ...tensor, name: "b.w", path: ["b", "w"] };
    const state = {
      tensors: [{ ...tensor, name: "a.w", path: ["a", "w"] }, other],
      values: [],
      worldSize: 1,
    };
    await writeDcp(join(folder, "dcp"), state, { overwrite: false });
    const none = await command("merge-weights", join(folder, "dcp"), join(folder, "x"));
    expect(none).toMatchObject({
      code: 1,
      err: [expect.stringMatching(/no tensors under "model", its keys are "a", "b"$/)],
    });
    const out = join(folder, "model.safetensors");
    await writeFile(out, "mine");
    const refused = await command("merge-weights", dcpFixture("hsdp-2x2"), folder);
    expect(refused).toMatchObject({
      code: 1,
      err: [expect.stringContaining("exists already, allowed with --overwrite")],
    });
    expect(await Bun.file(out).text()).toBe("mine");
    const json = await command("merge-weights", dcpFixture("hsdp-2x2"), folder, "--overwrite", "--json");
    expect(JSON.parse(json.out.join(""))).toMatchObject({ format: "dcp", file: out, tensors: 7 });
    expect((await readdir(folder)).sort()).toEqual(["dcp", "model.safetensors"]);
  });
});

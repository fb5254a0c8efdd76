import { describe, expect, test } from "bun:test";
import { cp, open, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fixture, inFolder } from "../../support/command.ts";
import { dcpFixture } from "../formats/dcp/fixtures.ts";
import { patternTensor } from "../states.ts";
import { command, saveNative } from "./run.ts";

/** Changes one byte of a file. */
async function flip(path: string, at: number): Promise<void> {
  const file = await open(path, "r+");
  const bytes = Buffer.alloc(1);
  await file.read(bytes, 0, 1, at);
  bytes[0]! ^= 1;
  await file.write(bytes, 0, 1, at);
  await file.close();
}

describe("verify", () => {
  test("finds whole checkpoints of every format whole", async () => {
    await inFolder(async (folder) => {
      await saveNative(join(folder, "run"), [patternTensor("model.w", "float32", [100])]);
      const whole: readonly (readonly [string, string, string])[] = [
        [join(folder, "run"), "native", "every byte matches its digests"],
        [dcpFixture("fsdp2-world2"), "dcp", "every item matches its checksums and the metadata"],
        [fixture("accelerate-fsdp2/ckpt"), "accelerate", "every item matches its checksums and the metadata"],
        [
          fixture("gpt2-tiny/final.safetensors"),
          "safetensors",
          "the structure is sound; the format has no checksums",
        ],
      ];
      for (const [location, format, verdict] of whole) {
        expect(await command("verify", location)).toEqual({
          code: 0,
          out: [`${location} (${format}): ${verdict}`],
          err: [],
        });
      }
    });
  });

  test("looks at the newest checkpoint of a run, also when its manifest is damaged", async () => {
    await inFolder(async (folder) => {
      const run = join(folder, "run");
      await saveNative(run, [patternTensor("model.w", "float32", [100])], { step: 1 });
      await saveNative(run, [patternTensor("model.w", "float32", [100])], { step: 2 });
      await flip(join(run, "step-00000002", "manifest.msgpack"), 100);
      const { code, out } = await command("verify", run);
      expect({ code, out }).toEqual({
        code: 1,
        out: [expect.stringContaining("manifest.msgpack"), expect.any(String)],
      });
      const merged = await command("merge-weights", run, folder);
      expect(merged).toMatchObject({ code: 1, err: [expect.stringContaining("step-00000002")] });
      expect((await command("verify", join(run, "step-00000001"))).code).toBe(0);
    });
  });

  test("names file and place of every changed byte, and exits with 1", async () => {
    await inFolder(async (folder) => {
      const run = join(folder, "run");
      await saveNative(run, [patternTensor("model.w", "float32", [100])]);
      const rank = join(run, "step-00000007", "rank-00001.safetensors");
      await flip(rank, (await stat(rank)).size - 1);
      const native = await command("verify", run);
      expect(native.code).toBe(1);
      expect(native.out).toEqual([
        expect.stringContaining("rank-00001.safetensors: block 0 does not match its checksum"),
        `${run} (native): 1 fault`,
      ]);

      const dcp = join(folder, "dcp");
      await cp(dcpFixture("dtypes"), dcp, { recursive: true });
      await flip(join(dcp, "__0_0.distcp"), 704);
      await flip(join(dcp, "__0_0.distcp"), 32244 - 22);
      const json = await command("verify", dcp, "--json");
      expect(json.code).toBe(1);
      expect(JSON.parse(json.out.join(""))).toEqual({
        source: dcp,
        format: "dcp",
        whole: false,
        checked: "every item matches its checksums and the metadata",
        faults: [
          {
            file: "__0_0.distcp",
            problem: expect.stringContaining("t.float64 [0:3, 0:4]: torch file: a storage does not match"),
          },
          { file: "__0_0.distcp", problem: expect.stringContaining("t.channels_last") },
        ],
      });

      const accelerate = join(folder, "ckpt");
      await cp(fixture("accelerate-fsdp2/ckpt"), accelerate, { recursive: true });
      await rm(join(accelerate, "optimizer_0", "__1_0.distcp"));
      const missing = await command("verify", accelerate);
      expect(missing.code).toBe(1);
      expect(missing.out.join(" ")).toContain("optimizer_0: ");
      expect(missing.out.join(" ")).toContain("__1_0.distcp is missing");

      const weights = join(folder, "w.safetensors");
      await writeFile(
        weights,
        (await Bun.file(fixture("gpt2-tiny/final.safetensors")).bytes()).subarray(0, 100_000),
      );
      const cut = await command("verify", weights);
      expect(cut).toMatchObject({
        code: 1,
        out: [expect.stringContaining("tensors take"), expect.stringContaining("1 fault")],
      });
    });
  });
});

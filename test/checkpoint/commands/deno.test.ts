import { expect, test } from "bun:test";
import { join } from "node:path";
import { fixture, inFolder, run } from "../../support/command.ts";
import { dcpFixture } from "../formats/dcp/fixtures.ts";

test("under Deno the commands print and write what they do under Bun", async () => {
  await inFolder(async (folder) => {
    const results = await Promise.all(
      (["bun", "deno"] as const).map(async (runtime) => {
        const native = join(folder, runtime, "run");
        const out = join(folder, runtime, "model.safetensors");
        const said = [
          await run(["convert", dcpFixture("hsdp-2x2"), native, "--to", "native"], runtime),
          await run(["merge-weights", native, out], runtime),
          await run(["verify", fixture("accelerate-fsdp2/ckpt"), "--json"], runtime),
          await run(["inspect", native, "--color", "always"], runtime),
        ];
        const text = JSON.stringify(said).replaceAll(join(folder, runtime), "~");
        return { text, merged: Buffer.from(await Bun.file(out).arrayBuffer()).toString("hex") };
      }),
    );
    expect(results[0]!.text).toContain('"code":0');
    expect(results[1]).toEqual(results[0]!);
  });
}, 60_000);

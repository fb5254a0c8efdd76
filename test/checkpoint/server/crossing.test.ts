import { expect, test } from "bun:test";
import { join } from "node:path";
import { run as command, inFolder } from "../../support/command.ts";
import { expectSameLosses, journey, train, writeTokens } from "../tiny-run.ts";
import { startService } from "./service.ts";

/** FSDP2 saves, FSDP1 goes on, and back: what is loaded was saved by the other version on other ranks. */
const LEGS = [
  { version: 2, world: 4 },
  { version: 1, world: 3, options: ["--no-fsdp-use-orig-params"] },
  { version: 2, world: 2 },
] as const;

test("FSDP2 on 4 ranks saves to the service, FSDP1 on 3 goes on and saves, FSDP2 on 2 goes on from there", async () => {
  const service = await startService();
  await inFolder(async (folder) => {
    await writeTokens(folder);
    const straight = await train(folder, { version: 2, world: 1 }, 2 * LEGS.length, "straight");
    const losses = await journey(folder, LEGS, `${service.url}/runs/crossing`);
    expectSameLosses(losses, straight);
    // Whoever saved: the service's model is the one that merge-weights makes of the same checkpoint, to the byte.
    for (const name of ["step-00000002", "step-00000004"]) {
      const merged = join(folder, `${name}.safetensors`);
      const merge = await command(["merge-weights", join(service.directory, "crossing", name), merged]);
      expect([merge.code, merge.stderr]).toEqual([0, ""]);
      const exported = await fetch(`${service.url}/v1/runs/crossing/checkpoints/${name}/export.safetensors`);
      expect(exported.status).toBe(200);
      expect(Buffer.compare(await exported.bytes(), await Bun.file(merged).bytes())).toBe(0);
    }
  });
  expect(service.errors).toEqual([]);
  await service.close();
}, 120_000);

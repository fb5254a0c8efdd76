import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { safetensorsFormat } from "../../checkpoint/formats/safetensors/format.ts";
import { SHARDING } from "../../core/runtime/sharding-version.ts";
import { registry } from "../../mod.ts";
import { inFolder, readLog, run } from "../support/command.ts";
import { generator } from "./layouts.ts";

const WITHOUT_DROPOUT = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 };
const MODEL = { vocab_size: 96, n_positions: 16, n_embd: 24, n_layer: 1, n_head: 3, ...WITHOUT_DROPOUT };
/** Every world size divides the batch, so that each step has the same rows whoever trains it. */
const TOKENS = { steps: 8, batch: 12, width: 17 };
const LEG = 2;

async function writeTokens(path: string): Promise<void> {
  const { steps, batch, width } = TOKENS;
  const random = generator(11);
  const tokens = BigInt64Array.from({ length: steps * batch * width }, () =>
    BigInt(random(MODEL.vocab_size)),
  );
  const shape = [steps, batch, width];
  await safetensorsFormat.write(
    path,
    [{ name: "tokens", dtype: "int64", shape, read: async () => tokens }],
    {},
  );
}

/** Trains to step `to` under one version and world size; gives the losses of the steps that it did. */
async function train(
  folder: string,
  leg: Leg,
  to: number,
  name: string,
  ...args: string[]
): Promise<number[]> {
  const log = join(folder, `${name}.jsonl`);
  const options = [
    ...["--config-model", JSON.stringify(MODEL), "--tokens", join(folder, "tokens.safetensors")],
    ...["--fsdp-version", String(leg.version), "--world-size", String(leg.world), "--clip", "1"],
    ...["--lr", "0.0005", "--steps", String(to), "--log", log, ...args],
  ];
  const { code, stderr } = await run(["train", ...options]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return (await readLog(log)).map((line) => line.loss!);
}

interface Leg {
  readonly version: number;
  readonly world: number;
}

const versions = registry
  .names(SHARDING)
  .flatMap((name) => /^fsdp([0-9]+)$/.exec(name)?.[1] ?? [])
  .map(Number);
/** Version by version alone, and each crossing over to the others and back. */
const journeys = versions.map((first): readonly Leg[] => {
  const turn = (i: number): number => versions[(versions.indexOf(first) + i) % versions.length]!;
  return [1, 3, 2, 4].map((world, i) => ({ version: turn(i), world }));
});

describe("a run that changes its layout at every checkpoint", () => {
  test.each(
    journeys.map(
      (legs) => [legs.map(({ version, world }) => `FSDP${version} on ${world}`).join(" -> "), legs] as const,
    ),
  )(
    "%s has the losses of the uninterrupted run within 1e-5",
    async (_, legs) => {
      await inFolder(async (folder) => {
        await writeTokens(join(folder, "tokens.safetensors"));
        const straight = await train(
          folder,
          { version: legs[0]!.version, world: 1 },
          TOKENS.steps,
          "straight",
        );
        const losses: number[] = [];
        for (const [i, leg] of legs.entries()) {
          const resume = i === 0 ? [] : ["--resume", "latest"];
          const to = LEG * (i + 1);
          losses.push(
            ...(await train(folder, leg, to, `leg-${i}`, "--save", join(folder, "run"), ...resume)),
          );
        }
        expect(losses.length).toBe(straight.length);
        for (const [i, loss] of losses.entries()) {
          expect(Math.abs(loss - straight[i]!) / straight[i]!).toBeLessThan(1e-5);
        }
      });
    },
    120_000,
  );

  test.each(versions)(
    "and one that does not, under FSDP%p on 3 ranks, has them bitwise",
    async (version) => {
      await inFolder(async (folder) => {
        await writeTokens(join(folder, "tokens.safetensors"));
        const leg = { version, world: 3 };
        const straight = await train(folder, leg, 2 * LEG, "straight");
        const save = ["--save", join(folder, "run")];
        const first = await train(folder, leg, LEG, "first", ...save, "--async-save");
        const rest = await train(folder, leg, 2 * LEG, "rest", ...save, "--resume", "latest");
        expect([...first, ...rest]).toEqual(straight);
      });
    },
    120_000,
  );
});

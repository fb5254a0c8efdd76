import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { SHARDING } from "../../core/runtime/sharding-version.ts";
import { registry } from "../../mod.ts";
import { inFolder } from "../support/command.ts";
import { describeLeg, expectSameLosses, journey, type Leg, train, writeTokens } from "./tiny-run.ts";

const versions = registry
  .names(SHARDING)
  .flatMap((name) => /^fsdp([0-9]+)$/.exec(name)?.[1] ?? [])
  .map(Number);
/** Version by version alone, and each crossing over to the others and back. */
const crossings = versions.map((first): readonly Leg[] => {
  const turn = (i: number): number => versions[(versions.indexOf(first) + i) % versions.length]!;
  return [1, 3, 2, 4].map((world, i) => ({ version: turn(i), world }));
});
/** Layouts as unlike as they come: whole, replicated and cut, flat without the model's parameters, one row each. */
const layouts: readonly Leg[] = [
  { version: 1, world: 2, options: ["--fsdp-sharding-strategy", "NO_SHARD"] },
  { version: 2, world: 4, options: ["--dp-replicate-size", "2"] },
  { version: 1, world: 3, options: ["--no-fsdp-use-orig-params", "--fsdp-auto-wrap-policy", "NO_WRAP"] },
  { version: 2, world: 4, options: ["--fsdp-offload-params"] },
];

describe("a run that changes its layout at every checkpoint", () => {
  test.each([...crossings, layouts].map((legs) => [legs.map(describeLeg).join(" -> "), legs] as const))(
    "%s has the losses of the uninterrupted run within 1e-5",
    async (_, legs) => {
      await inFolder(async (folder) => {
        await writeTokens(folder);
        const alone = { version: legs[0]!.version, world: 1 };
        const straight = await train(folder, alone, 2 * legs.length, "straight");
        expectSameLosses(await journey(folder, legs, join(folder, "run")), straight);
      });
    },
    120_000,
  );

  test.each(versions)(
    "and one that does not, under FSDP%p on 3 ranks, has them bitwise",
    async (version) => {
      await inFolder(async (folder) => {
        await writeTokens(folder);
        const leg = { version, world: 3 };
        const straight = await train(folder, leg, 4, "straight");
        const save = ["--save", join(folder, "run")];
        const first = await train(folder, leg, 2, "first", ...save, "--async-save");
        const rest = await train(folder, leg, 4, "rest", ...save, "--resume", "latest");
        expect([...first, ...rest]).toEqual(straight);
      });
    },
    120_000,
  );
});

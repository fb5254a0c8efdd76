/** saveState and loadState: a run that was interrupted anywhere is the run that was not. */
import { describe, expect, test } from "bun:test";
import { cpSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { launch } from "../../../../mod.ts";
import { startService } from "../../../checkpoint/server/service.ts";
import { inFolder } from "../../../support/command.ts";
import type { CheckpointStep } from "./checkpoint-programs.ts";
import type { Outcome, Run } from "./programs.ts";

async function ranks<T>(worldSize: number, program: string, args: unknown, seed = 5): Promise<readonly T[]> {
  const options = { worldSize, collective: "local", export: program, args, seed };
  const file = program === "train" ? "programs.ts" : "checkpoint-programs.ts";
  return (await launch(new URL(file, import.meta.url).href, options)) as readonly T[];
}

/** A run that goes on from another begins with another seed, of which nothing must be left. */
async function train(worldSize: number, run: Run): Promise<Outcome> {
  return (await ranks<Outcome>(worldSize, "train", run, run.resume === undefined ? 5 : 6))[0]!;
}

/** What every rank saw, which was the same. */
async function checkpoints(
  worldSize: number,
  run: Run,
  steps: readonly CheckpointStep[],
): Promise<unknown[]> {
  const [first, ...others] = await ranks<unknown[]>(worldSize, "checkpoints", { ...run, steps });
  for (const other of others) expect(other).toEqual(first!);
  return first!;
}

describe.each([1, 2] as const)("FSDP%d", (version) => {
  test.each([1, 2, 3])("saved in the middle of an epoch, %d ranks go on bit by bit", async (worldSize) => {
    await inFolder(async (projectDir) => {
      const run: Run = { version, projectDir, shuffle: true, dropout: 0.3, accumulation: 2, samples: 26 };
      // 5 batches an epoch: in the middle of the second, behind an epoch's short last window.
      const whole = await train(worldSize, { ...run, saveAfter: 7 });
      expect(whole.saved).toBe(join(projectDir, "checkpoints", "checkpoint_0"));
      const rest = await train(worldSize, { ...run, resume: join(projectDir, "checkpoints") });
      expect(rest.losses).toEqual(whole.losses.slice(7));
      expect(rest.lrs).toEqual(whole.lrs.slice(7));
      expect(rest.weights).toEqual(whole.weights);
    });
  });

  test("in float16 the loss scale goes on too", async () => {
    await inFolder(async (projectDir) => {
      const run: Run = { version, projectDir, mixedPrecision: "fp16", shuffle: true };
      const whole = await train(2, { ...run, saveAfter: 5 });
      const rest = await train(2, { ...run, resume: whole.saved! });
      expect(rest.weights).toEqual(whole.weights);
      expect(rest.losses).toEqual(whole.losses.slice(5));
    });
  });
});

test("other ranks under the other version go on with the next sample, to the same weights", async () => {
  await inFolder(async (projectDir) => {
    const run: Run = { projectDir, shuffle: true };
    const whole = await train(3, { ...run, version: 1, saveAfter: 3 });
    const rest = await train(2, { ...run, version: 2, resume: whole.saved! });
    expect(rest.losses.length).toBe(whole.losses.length - 3);
    for (const [i, loss] of rest.losses.entries()) expect(loss).toBeCloseTo(whole.losses[3 + i]!, 5);
    for (const [name, values] of Object.entries(rest.weights)) {
      for (const [i, value] of values.entries()) expect(value).toBeCloseTo(whole.weights[name]![i]!, 5);
    }
  });
});

test("checkpoints are numbered on from those that are there, by number, and the oldest go", async () => {
  await inFolder(async (projectDir) => {
    const folder = join(projectDir, "checkpoints");
    const steps = Array.from({ length: 9 }, (): CheckpointStep => ({ do: "save" }));
    await checkpoints(2, { projectDir, totalLimit: 3 }, steps);
    expect(readdirSync(folder).sort()).toEqual(["checkpoint_6", "checkpoint_7", "checkpoint_8"]);
    const seen = await checkpoints(1, { projectDir, totalLimit: 3 }, [
      { do: "load" },
      { do: "save" },
      { do: "save" },
      { do: "load" },
      { do: "load", at: join(folder, "checkpoint_9") },
    ]);
    const places = [8, 9, 10, 10, 9].map((n) => join(folder, `checkpoint_${n}`));
    expect(seen).toEqual(places);
    expect(readdirSync(folder).sort()).toEqual(["checkpoint_10", "checkpoint_8", "checkpoint_9"]);
    cpSync(join(folder, "checkpoint_8"), join(projectDir, "moved", "best"), { recursive: true });
    const moved = join(projectDir, "moved", "best");
    expect(await checkpoints(2, {}, [{ do: "load", at: moved }])).toEqual([moved]);
  });
});

test("registered objects are saved and loaded with the rest", async () => {
  await inFolder(async (projectDir) => {
    const seen = await checkpoints(2, { projectDir }, [
      { do: "register" },
      { do: "count" },
      { do: "save" },
      { do: "count" },
      { do: "counted" },
      { do: "load" },
      { do: "counted" },
    ]);
    expect([seen[4], seen[6]]).toEqual([3, 2]);
  });
});

test("what does not change is stored once for all checkpoints", async () => {
  await inFolder(async (projectDir) => {
    await ranks(2, "frozen", projectDir);
    const links = (name: string) => {
      const folder = join(projectDir, "checkpoints", name);
      return readdirSync(folder).map((file) => statSync(join(folder, file)).nlink);
    };
    expect(links("checkpoint_1").filter((count) => count === 2).length).toBeGreaterThan(0);
    expect(links("checkpoint_0").toSorted()).toEqual(links("checkpoint_1").toSorted());
  });
});

test("several models and optimizers are told apart", async () => {
  await inFolder(async (projectDir) => {
    for (const result of await ranks(2, "several", projectDir)) {
      expect(result).toEqual({ start: true, same: true, moved: true, ownDevice: true });
    }
  });
});

test("a run of a checkpoint service is a place as a folder is", async () => {
  const service = await startService();
  try {
    const projectDir = `${service.url}/runs/one`;
    const whole = await train(2, { projectDir, totalLimit: 1, shuffle: true, saveAfter: 5 });
    expect(whole.saved).toBe(`${projectDir}/checkpoint_0`);
    const rest = await train(2, { shuffle: true, resume: projectDir });
    expect(rest.weights).toEqual(whole.weights);
    const named = await train(1, { shuffle: true, resume: `${projectDir}/checkpoint_0` });
    expect(named.losses.length).toBe(3);
    const one = `${projectDir}/checkpoint_1`;
    const steps: CheckpointStep[] = [{ do: "save" }, { do: "load" }, { do: "load", at: one }];
    expect(await checkpoints(2, { projectDir, totalLimit: 1 }, steps)).toEqual([one, one, one]);
    expect(await checkpoints(1, {}, [{ do: "load", at: `${projectDir}/checkpoint_0` }])).toEqual([
      expect.stringContaining("checkpoint_0"),
    ]);
    expect(service.errors).toEqual([]);
  } finally {
    await service.close();
  }
});

describe("what cannot be saved or loaded is refused on every rank", () => {
  test("without a place, or with nothing there", async () => {
    await inFolder(async (folder) => {
      const [save, load, none, scheme] = (await checkpoints(2, {}, [
        { do: "save" },
        { do: "load" },
        { do: "load", at: folder },
        { do: "save", at: "ftp://somewhere" },
      ])) as string[];
      expect(save).toBe(
        "ConfigError: cannot save state: given no location, allowed is none when projectDir is given",
      );
      expect(load).toStartWith("ConfigError: cannot load state: given no location");
      expect(none).toStartWith(
        `CheckpointError: cannot load state: given "${folder}", where there is no complete checkpoint`,
      );
      expect(scheme).toStartWith(
        'ConfigError: cannot use checkpoints at "ftp://somewhere": no store takes it',
      );
    });
  });

  test("with other objects than were saved, before anything is changed", async () => {
    await inFolder(async (projectDir) => {
      const [, , before, optimizer, after] = (await checkpoints(2, { projectDir }, [
        { do: "save" },
        { do: "optimizer" },
        { do: "weights" },
        { do: "load" },
        { do: "weights" },
      ])) as [unknown, unknown, unknown, string, unknown];
      expect(optimizer).toBe(
        "CheckpointError: load of checkpoint_0: it has 1 optimizers, the accelerator has 2, allowed are as many, in the same order",
      );
      expect(after).toEqual(before);
      const [, custom] = (await checkpoints(1, { projectDir }, [
        { do: "register" },
        { do: "load" },
      ])) as string[];
      expect(custom).toContain("it has 0 objects registered for checkpointing, the accelerator has 1");
    });
  });

  test("while gradients are being accumulated, which it would lose", async () => {
    await inFolder(async (projectDir) => {
      const steps: CheckpointStep[] = [{ do: "half" }, { do: "save" }, { do: "half" }, { do: "save" }];
      const [, open, , saved] = (await checkpoints(2, { projectDir, accumulation: 2 }, steps)) as string[];
      expect(open).toStartWith("StateError: saveState() failed: 1 of 2 microbatches are accumulated");
      expect(saved).toEndWith("checkpoint_0");
    });
  });
});

import { expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findCheckpoint, openStore } from "../../core/runtime/checkpoint-place.ts";
import { inFolder } from "../support/command.ts";
import { registry, saveNative } from "./commands/run.ts";
import { patternTensor } from "./states.ts";

const TENSORS = [patternTensor("w", "float32", [4, 2])];

test("a location means the newest checkpoint that can be read, or the one whose own location it is", async () => {
  await inFolder(async (folder) => {
    const run = join(folder, "run");
    for (const step of [1, 2, 3]) await saveNative(run, TENSORS, { step });
    const find = (location: string) => findCheckpoint(registry, location, "try");
    expect(await find(run)).toEqual({ location: run, name: "step-00000003", damaged: [] });
    expect(await find(`${run}/`)).toMatchObject({ name: "step-00000003" });
    for (const own of ["step-00000001", "step-00000003"]) {
      expect(await find(join(run, own))).toEqual({ location: run, name: own });
    }
    await writeFile(join(run, "step-00000003", "manifest.msgpack"), "none");
    expect(await find(run)).toEqual({
      location: run,
      name: "step-00000002",
      damaged: [expect.stringContaining("step-00000003")],
    });
  });
});

test("a location without a checkpoint, above or in it, is refused with what was to be done and what is wrong there", async () => {
  await inFolder(async (folder) => {
    for (const empty of [folder, join(folder, "none"), "memory:none"]) {
      await expect(findCheckpoint(registry, empty, "go on")).rejects.toThrow(
        `cannot go on: given "${empty}", where there is no complete checkpoint of this project`,
      );
    }
    expect(() => openStore(registry, "ftp://somewhere")).toThrow(
      'cannot use checkpoints at "ftp://somewhere": no store takes it, there are directory',
    );
    await saveNative(join(folder, "run"), TENSORS, { step: 1 });
    await writeFile(join(folder, "run", "step-00000001", "manifest.msgpack"), "none");
    await expect(findCheckpoint(registry, join(folder, "run"), "go on")).rejects.toThrow(
      /project \(.*step-00000001.*\);/,
    );
  });
});

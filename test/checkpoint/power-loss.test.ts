import { describe, expect, test } from "bun:test";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { killedState, killedTensors } from "./killed-state.ts";
import { type ModelOptions, modelFileSystem, type Survival } from "./model-file-system.ts";
import { runRanks, settleRanks } from "./ranks.ts";
import { cutBox, dimZero, emptyState } from "./states.ts";

const SURVIVALS: readonly Survival[] = ["synced entries", "all entries"];

/** When the power goes, and from which length on files are written past the page cache. */
interface Loss extends ModelOptions {
  readonly directFrom: number;
}

/** Saves steps 1 to 3, keeping one, until the power goes; tells which saves were said to have succeeded. */
async function saveUntil({ directFrom, ...options }: Loss) {
  const model = modelFileSystem(options);
  const store = directoryStore("/run", { fs: model.fs, directFrom });
  const checkpointer = nativeCheckpointer(store, { keepLast: 1 });
  let acknowledged = 0;
  for (const step of [1, 2, 3]) {
    const results = await settleRanks(2, (collective) =>
      checkpointer.save(killedState(step, collective.rank), step, collective),
    );
    if (results.every(({ status }) => status === "fulfilled")) acknowledged = step;
  }
  return { model, acknowledged };
}

/** What is wrong after the loss: a save that is gone though it succeeded, or a checkpoint that is listed and not whole. */
async function damage(options: Loss, survival: Survival): Promise<string | undefined> {
  const { model, acknowledged } = await saveUntil(options);
  const checkpointer = nativeCheckpointer(directoryStore("/run", { fs: model.crash(survival).fs }));
  let unreadable: string | undefined;
  const infos = await checkpointer.list({ onDamaged: (_, problem) => (unreadable = problem) });
  if (unreadable !== undefined) return unreadable;
  for (const { name, step } of infos) {
    const [fault] = await checkpointer.verify(name);
    if (fault !== undefined) return `${name}: ${fault.file}: ${fault.problem}`;
    await runRanks(1, async (collective) => {
      const { state, filled } = emptyState(killedTensors(step), dimZero(1), 0);
      await checkpointer.load(state, name, collective);
      for (const { tensor, box, bytes } of filled) expect(bytes).toEqual(cutBox(tensor, box));
    });
  }
  const newest = infos.at(-1)?.step ?? 0;
  return newest < acknowledged ? `step ${acknowledged} succeeded, the newest there is ${newest}` : undefined;
}

describe.each([
  ["through the page cache", Number.POSITIVE_INFINITY],
  ["past it", 0],
])("a loss of power while files are written %s", (_, directFrom) => {
  test("after any operation leaves every checkpoint whose save succeeded, and none that is not whole", async () => {
    const { model, acknowledged } = await saveUntil({ directFrom });
    expect(acknowledged).toBe(3);
    expect(model.operations).toBeGreaterThan(60);
    for (let limit = 0; limit <= model.operations; limit++) {
      for (const survival of SURVIVALS) {
        expect({ limit, survival, damage: await damage({ limit, directFrom }, survival) }).toEqual({
          limit,
          survival,
          damage: undefined,
        });
      }
    }
  });

  test("would be found out if files or folders were not synced", async () => {
    expect(await damage({ ignoreSync: true, directFrom }, "synced entries")).toBe(
      "step 3 succeeded, the newest there is 0",
    );
    expect(await damage({ ignoreSync: true, directFrom }, "all entries")).toContain("manifest.msgpack");
  });
});

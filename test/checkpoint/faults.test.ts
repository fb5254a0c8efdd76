import { afterAll, expect, test } from "bun:test";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { type Ask, faultFileSystem } from "./fault-file-system.ts";
import { killedState } from "./killed-state.ts";
import { runRanks, settleRanks } from "./ranks.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-faults-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const CODES = ["ENOSPC", "EACCES", "EIO"] as const;

/** Saves steps 1 and 2 with a fault from the operation `from` of the second save on, `times` times; tells how it ended. */
async function saveWithFault(name: string, from: number, times: number, code: string) {
  const root = join(folder, name);
  await runRanks(2, (collective) =>
    nativeCheckpointer(directoryStore(root)).save(killedState(1, collective.rank), 1, collective),
  );
  let operations = 0;
  const ask: Ask = async (operation) => {
    const now = operations++;
    if (now < from || now >= from + times) return;
    throw Object.assign(new Error(`${code}: made up, ${operation}`), { code });
  };
  const checkpointer = nativeCheckpointer(directoryStore(root, { fs: faultFileSystem(ask) }));
  const results = await settleRanks(2, (collective) =>
    checkpointer.save(killedState(2, collective.rank), 2, collective),
  );
  return { root, checkpointer, results, operations };
}

test("a full disk, a refusal or a fault at any operation ends the save on all ranks with one typed error, and a later save succeeds", async () => {
  const { operations } = await saveWithFault("count", Number.POSITIVE_INFINITY, 0, "");
  expect(operations).toBeGreaterThan(20);
  let failed = 0;
  for (let at = 0; at < operations; at++) {
    const code = CODES[at % CODES.length]!;
    const { root, checkpointer, results } = await saveWithFault(`at-${at}`, at, 1, code);
    const [first, second] = results;
    expect(first!.status).toBe(second!.status);
    if (first!.status === "fulfilled") {
      // What it met was not needed: a file to be shared is written instead.
      expect((await checkpointer.list()).map(({ step }) => step)).toEqual([1, 2]);
    } else {
      failed += 1;
      for (const result of results) {
        const { reason } = result as PromiseRejectedResult;
        expect(reason).toBeInstanceOf(CheckpointError);
        expect(reason.message).toStartWith("save of step 2: ");
        expect(reason.message).toContain(code);
        expect(reason.message).toBe((first as PromiseRejectedResult).reason.message);
      }
      expect((await checkpointer.list()).map(({ step }) => step)).toEqual([1]);
      await runRanks(2, (collective) => checkpointer.save(killedState(2, collective.rank), 2, collective));
    }
    for (const step of [1, 2]) expect(await checkpointer.verify(`step-0000000${step}`)).toEqual([]);
    expect((await readdir(root)).sort()).toEqual(["step-00000001", "step-00000002"]);
  }
  expect(failed).toBeGreaterThan(operations / 2);
});

test("a disk that stays full ends the save and leaves what was there", async () => {
  for (const at of [0, 3, 6, 12]) {
    const { checkpointer, results } = await saveWithFault(
      `full-${at}`,
      at,
      Number.POSITIVE_INFINITY,
      "ENOSPC",
    );
    for (const result of results) {
      expect(result).toMatchObject({ status: "rejected", reason: { name: "CheckpointError" } });
    }
    expect((await checkpointer.list()).map(({ step }) => step)).toEqual([1]);
    expect(await checkpointer.verify("step-00000001")).toEqual([]);
  }
});

test("a place where no folder can be is refused by name", async () => {
  const file = join(folder, "file");
  await writeFile(file, "");
  const results = await settleRanks(2, (collective) =>
    nativeCheckpointer(directoryStore(join(file, "run"))).save(
      killedState(1, collective.rank),
      1,
      collective,
    ),
  );
  for (const result of results) {
    expect(result).toMatchObject({ status: "rejected", reason: { name: "CheckpointError" } });
    expect((result as PromiseRejectedResult).reason.message).toContain("ENOTDIR");
  }
});

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { type Ask, faultFileSystem } from "./fault-file-system.ts";
import { killedState } from "./killed-state.ts";
import { runRanks, settleRanks } from "./ranks.ts";
import { takesDirect } from "./stores/takes-direct.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-faults-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const CODES = ["ENOSPC", "EACCES", "EIO"] as const;

/** Which operations of a save fail, and with what. */
interface Fault {
  readonly code: string;
  /** From which one on. */
  readonly from: number;
  /** How many. Default: all. */
  readonly times?: number;
  /** The only name of those that count. Default: any. */
  readonly only?: string;
}

let runs = 0;

/** Saves steps 1 and 2, the second one with a fault, as `directFrom` says past the page cache; tells how it ended. */
async function saveWithFault(directFrom: number, fault: Fault) {
  const { code, from, times = Number.POSITIVE_INFINITY, only } = fault;
  const root = join(folder, `run-${runs++}`);
  await runRanks(2, (collective) =>
    nativeCheckpointer(directoryStore(root)).save(killedState(1, collective.rank), 1, collective),
  );
  const operations: string[] = [];
  const ask: Ask = async (operation) => {
    if (only !== undefined && operation !== only) return;
    const now = operations.push(operation) - 1;
    if (now < from || now >= from + times) return;
    throw Object.assign(new Error(`${code}: made up, ${operation}`), { code });
  };
  const checkpointer = nativeCheckpointer(directoryStore(root, { fs: faultFileSystem(ask), directFrom }));
  const results = await settleRanks(2, (collective) =>
    checkpointer.save(killedState(2, collective.rank), 2, collective),
  );
  return { root, checkpointer, results, operations };
}

describe.each([
  ["through the page cache", Number.POSITIVE_INFINITY],
  ["past it", 0],
])("a save %s", (_, directFrom) => {
  test("that meets a full disk, a refusal or a fault at any operation ends on all ranks with one typed error, and a later one succeeds", async () => {
    const { operations } = await saveWithFault(directFrom, { code: "", from: 0, times: 0 });
    expect(operations.length).toBeGreaterThan(20);
    const isDirect = directFrom === 0;
    if (isDirect && (await takesDirect(folder))) expect(operations).toContain("direct write");
    if (!isDirect) expect(operations).not.toContain("direct open");
    let failed = 0;
    for (let at = 0; at < operations.length; at++) {
      const code = CODES[at % CODES.length]!;
      const { root, checkpointer, results } = await saveWithFault(directFrom, { code, from: at, times: 1 });
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
    expect(failed).toBeGreaterThan(operations.length / 2);
  });

  test("to a disk that stays full ends, and leaves what was there", async () => {
    for (const from of [0, 3, 6, 12]) {
      const { checkpointer, results } = await saveWithFault(directFrom, { code: "ENOSPC", from });
      for (const result of results) {
        expect(result).toMatchObject({ status: "rejected", reason: { name: "CheckpointError" } });
      }
      expect((await checkpointer.list()).map(({ step }) => step)).toEqual([1]);
      expect(await checkpointer.verify("step-00000001")).toEqual([]);
    }
  });
});

test("a save whose way past the page cache is refused, at once or later, is whole", async () => {
  for (const only of ["direct open", "direct write"]) {
    for (const from of [0, 1]) {
      const { checkpointer, results } = await saveWithFault(0, { code: "EINVAL", from, only });
      expect(results.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled"]);
      for (const step of [1, 2]) expect(await checkpointer.verify(`step-0000000${step}`)).toEqual([]);
    }
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

import { afterAll, expect, test } from "bun:test";
import { cp, mkdtemp, readdir, rm, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { killedState, killedTensors } from "./killed-state.ts";
import { runRanks } from "./ranks.ts";
import { cutBox, dimZero, emptyState } from "./states.ts";
import { takesDirect } from "./stores/takes-direct.ts";

const SCRIPT = fileURLToPath(new URL("./killed-save.ts", import.meta.url));
/** What can be done in part. */
const DIVISIBLE: ReadonlySet<string> = new Set(["write", "direct write", "rm", "writeFile"]);
/** Processes at once: they mostly start. */
const WORKERS = 4;

const folder = await mkdtemp(join(tmpdir(), "fsdp-killed-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const template = join(folder, "template");
await runRanks(2, (collective) =>
  nativeCheckpointer(directoryStore(template)).save(killedState(1, collective.rank), 1, collective),
);

async function killAt(root: string, point: number, half: string): Promise<string> {
  await cp(template, root, { recursive: true });
  const child = Bun.spawn([process.execPath, SCRIPT, root, String(point), half], { stderr: "pipe" });
  const [printed, problems] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  expect(problems).toBe("");
  expect(child.signalCode).toBe(point < 0 ? null : "SIGKILL");
  return printed;
}

/** Whatever is listed is whole and loads bitwise at another world size; the run goes on, and leftovers go. */
async function checkRoot(root: string): Promise<readonly number[]> {
  const checkpointer = nativeCheckpointer(directoryStore(root));
  const steps = (await checkpointer.list({ onDamaged: (name) => expect(name).toBe("whole") })).map(
    ({ step }) => step,
  );
  for (const step of steps) {
    expect(await checkpointer.verify(`step-0000000${step}`)).toEqual([]);
    const tensors = killedTensors(step);
    await runRanks(3, async (collective) => {
      const { state, filled } = emptyState(tensors, dimZero(3), collective.rank);
      const loaded = await checkpointer.load(state, `step-0000000${step}`, collective);
      for (const { tensor, box, bytes } of filled) expect(bytes).toEqual(cutBox(tensor, box));
      expect(loaded.values).toEqual({ step });
    });
  }
  const then = new Date(Date.now() - 120_000);
  for (const entry of await readdir(root)) {
    if (!entry.startsWith(".")) continue;
    for (const file of await readdir(join(root, entry))) await utimes(join(root, entry, file), then, then);
    await utimes(join(root, entry), then, then);
  }
  await runRanks(2, (collective) => checkpointer.save(killedState(9, collective.rank), 9, collective));
  const left = await readdir(root);
  // A folder whose owner was never noted, or only in part, waits for a day.
  expect(left.filter((name) => name.startsWith(".trash-"))).toEqual([]);
  expect(left.filter((name) => !name.startsWith(".")).sort()).toEqual(
    [...steps, 9].map((step) => `step-0000000${step}`),
  );
  return steps;
}

test("a process killed at any operation of a save, in its middle too, leaves the last committed checkpoint, whole", async () => {
  const operations = JSON.parse(await killAt(join(folder, "whole"), -1, "")) as string[];
  expect(await checkRoot(join(folder, "whole"))).toEqual([5]);
  if (await takesDirect(folder)) {
    // Each of two ranks writes one large file, in each of two saves.
    expect(operations.filter((operation) => operation === "direct write").length).toBe(4);
  }
  const points = operations.flatMap((operation, point) =>
    operation === "direct open"
      ? [] // It changes nothing.
      : ["", ...(DIVISIBLE.has(operation) ? ["half"] : [])].map((half) => ({ point, half })),
  );
  expect(points.length).toBeGreaterThan(150);
  const last = new Map<number, number>();
  const work = async (): Promise<void> => {
    for (let next = points.pop(); next !== undefined; next = points.pop()) {
      const root = join(folder, `at-${next.point}-${next.half}`);
      await killAt(root, next.point, next.half);
      const steps = await checkRoot(root);
      // One checkpoint is kept, and while the next one takes its place there are two.
      expect(steps.length).toBeLessThanOrEqual(2);
      expect(steps).toEqual(steps.length === 2 ? [steps[0]!, steps[0]! + 1] : [steps[0]!]);
      last.set(next.point, Math.max(last.get(next.point) ?? 0, ...steps));
      await rm(root, { recursive: true });
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  // Every stage was met.
  expect([...new Set(last.values())].sort()).toEqual([1, 2, 3, 4, 5]);
}, 120_000);

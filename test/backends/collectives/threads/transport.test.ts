import { describe, expect, test } from "bun:test";
import { execFile } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { threadsTransport } from "../../../../backends/collectives/threads/transport.ts";
import type { RankJob } from "../../../../core/contracts/transport.ts";
import type { BadEnd } from "./programs.ts";

const PROGRAMS = new URL("./programs.ts", import.meta.url).href;
const SUITE_PROGRAMS = new URL("../../../conformance/collective/programs.ts", import.meta.url).href;

function launch(name: string, args: unknown = {}, worldSize = 3, onMessage = (): void => {}): RankJob {
  return threadsTransport.launch({ module: PROGRAMS, export: name, args }, { worldSize, onMessage });
}

describe("a rank that ends badly fails the job in its name", () => {
  const cases: readonly (readonly [BadEnd, object])[] = [
    [
      "exit",
      { name: "DeviceError", message: "rank 1: thread ended with code 3 before the rank's function did" },
    ],
    ["uncloneable", { name: "DataCloneError", message: expect.stringMatching(/^rank 1: /) }],
    ["collective", { name: "CollectiveError", rank: 7, message: "rank 1: rank 7 of another job" }],
  ];
  test.each(cases)("%s", async (how, expected) => {
    await expect(launch("badEnd", { how }).results).rejects.toMatchObject(expected);
  });
});

test("a rank that computes for a minute does not delay the error of another", async () => {
  const program = { module: SUITE_PROGRAMS, export: "failingRank", args: { computes: true } };
  const job = threadsTransport.launch(program, { worldSize: 3 });
  await expect(job.results).rejects.toMatchObject({ name: "ShapeError" });
}, 20_000);

test("kill ends ranks that compute", async () => {
  const started = Promise.withResolvers<void>();
  const job = launch("computeForLong", {}, 2, started.resolve);
  await started.promise;
  await job.kill();
  await expect(job.results).rejects.toMatchObject({ name: "AbortError" });
}, 20_000);

test("a timer that a rank leaves behind does not keep the job from ending", async () => {
  expect(await launch("lingeringTimer").results).toEqual([0, 1, 2]);
}, 20_000);

test("host memory may grow at any time, before and after views of it were made", async () => {
  expect(await launch("grownMemory").results).toEqual(new Array(3).fill([6, 60]));
});

test("transfers of devices that the host does not see go through the same windows at every step", async () => {
  const results = (await launch("remoteSteps").results) as readonly {
    sums: readonly number[];
    end: number;
  }[];
  for (const [rank, { sums, end }] of results.entries()) {
    // 1000 ones, twos and threes, and three times this rank's own.
    expect(sums).toEqual(new Array(30).fill(6000 + 3 * (rank + 1)));
    // Few windows of 8000 bytes are in use at once, with room lost between them: 30 steps of new ones would need 480,000.
    expect(end).toBeLessThan(64_000);
  }
}, 20_000);

describe("a process that ran a job ends by itself", () => {
  const script = fileURLToPath(new URL("./script.ts", import.meta.url));
  const deno = fileURLToPath(new URL("../../../../node_modules/.bin/deno", import.meta.url));
  test.each([
    ["bun", process.execPath, [script]],
    ["deno", deno, ["run", "--allow-all", script]],
  ] as const)(
    "%s",
    async (_, command, args) => {
      const { stdout } = await promisify(execFile)(command, [...args], { timeout: 50_000 });
      expect(JSON.parse(stdout)).toEqual({
        problems: [],
        agree: true,
        remote: [3002, 3004],
        shares: new Array(4).fill([0, ...Array.from({ length: 40 }, (_, i) => i)]),
        mesh: [10, 10, 10, 10],
        failure: ["ShapeError", "rank 1: weights do not fit: 3 given, 4 needed"],
        killed: "AbortError",
        // The test runner keeps unhandled errors of threads to itself; a program's own are the rank's.
        rejection: ["StateError", "rank 1: nobody awaits this"],
        exception: ["StateError", "rank 1: nobody catches this"],
      });
    },
    60_000,
  );
});

import { expect, test } from "bun:test";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { RUNTIMES } from "../../support/command.ts";

interface Result {
  readonly losses: readonly number[];
  readonly weights: readonly (readonly [string, readonly number[]])[];
  readonly left: readonly number[];
  readonly events: number;
}

async function smoke(runtime: keyof typeof RUNTIMES): Promise<readonly Result[]> {
  const [program, ...args] = RUNTIMES[runtime];
  const path = fileURLToPath(new URL("./deno-smoke.ts", import.meta.url));
  const { stdout } = await promisify(execFile)(program!, [...args, path]);
  return JSON.parse(stdout) as readonly Result[];
}

test("Deno trains with replicas, lists, checkpointed activations and offloading as Bun does", async () => {
  const [deno, bun] = await Promise.all([smoke("deno"), smoke("bun")]);
  expect(deno.map(({ weights }) => weights.length)).toEqual([12, 0, 0, 0]);
  for (const [r, { losses, weights, left, events }] of deno.entries()) {
    expect(left).toEqual([0, 0]);
    expect(events).toBe(bun[r]!.events);
    // Engines differ in the last bits of powers.
    for (const [i, loss] of losses.entries()) expect(loss).toBeCloseTo(bun[r]!.losses[i]!, 6);
    for (const [i, [name, values]] of weights.entries()) {
      expect(name).toBe(bun[r]!.weights[i]![0]);
      for (const [j, value] of values.entries()) expect(value).toBeCloseTo(bun[r]!.weights[i]![1][j]!, 4);
    }
  }
}, 60_000);

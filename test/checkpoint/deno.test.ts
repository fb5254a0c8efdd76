import { expect, test } from "bun:test";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

async function smoke(program: string, args: readonly string[]): Promise<unknown> {
  const { stdout } = await promisify(execFile)(program, [...args, path("./deno-smoke.ts")]);
  return JSON.parse(stdout);
}

test("Deno saves, loads, verifies and deletes as Bun does, in the same bytes", async () => {
  const deno = await smoke(path("../../node_modules/.bin/deno"), ["run", "-A"]);
  expect(deno).toMatchObject({
    taken: true,
    matches: [true, true, true],
    background: ["step-00000002", "step-00000002"],
    faults: [],
    names: ["s", "w@0,0", "h@0"],
    x: [1, 0],
    left: [],
  });
  expect(deno).toEqual(await smoke(process.execPath, []));
}, 60_000);

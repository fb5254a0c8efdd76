import { expect, test } from "bun:test";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { runtimeFacts } from "./deno-check.ts";

test("Deno draws the same random numbers to the bit and computes the same on every engine", async () => {
  const root = fileURLToPath(new URL("../../../", import.meta.url));
  const deno = `${root}node_modules/.bin/deno`;
  const { stdout } = await promisify(execFile)(deno, ["run", "-A", "test/backends/cpu/deno-check.ts"], {
    cwd: root,
  });
  const theirs = JSON.parse(stdout) as Record<string, number[]>;
  const ours = await runtimeFacts();
  expect(Object.keys(theirs)).toEqual(Object.keys(ours));
  expect(theirs.normals).toEqual(ours.normals!);
  expect(theirs.words).toEqual(ours.words!);
  for (const kernels of ["halves plain", "halves fast"]) {
    expect(theirs[kernels]).toEqual(ours["halves plain"]!);
    expect(ours[kernels]).toEqual(ours["halves plain"]!);
  }
  for (const engine of ["plain", "wasm", "blas"]) {
    for (const [i, value] of ours[engine]!.entries()) {
      expect(Math.abs(theirs[engine]![i]! - value), `${engine}, element ${i}`).toBeLessThan(1e-6);
      expect(Math.abs(ours.plain![i]! - value), `${engine} and plain, element ${i}`).toBeLessThan(1e-6);
    }
  }
}, 60_000);

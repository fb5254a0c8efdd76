import { expect, test } from "bun:test";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describeGpu } from "./gpu.ts";
import { runtimeFacts } from "./runtime-check.ts";

describeGpu("runtimes", () => {
  test("Deno computes the same bits on the GPU as Bun", async () => {
    const root = fileURLToPath(new URL("../../../", import.meta.url));
    const deno = `${root}node_modules/.bin/deno`;
    const script = "test/backends/webgpu/runtime-check.ts";
    const { stdout } = await promisify(execFile)(deno, ["run", "-A", script], { cwd: root });
    const facts = await runtimeFacts();
    expect(Object.keys(facts).length).toBe(5);
    expect(JSON.parse(stdout)).toEqual(facts);
  }, 60_000);
});

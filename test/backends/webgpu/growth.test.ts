import { expect } from "bun:test";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { testOnGpu } from "./gpu.ts";

testOnGpu(
  "a thousand training steps take no more memory than two hundred, on the device to the byte",
  async () => {
    const script = fileURLToPath(new URL("growth-run.ts", import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [script]);
    const { resident, device, peaks } = JSON.parse(stdout) as Record<string, number[]> & {
      device: number[][];
      peaks: number[][];
    };
    for (const bytes of [...device, ...peaks]) expect(new Set(bytes).size).toBe(1);
    // 800 steps that each kept one kilobyte would show.
    const growth = resident!.at(-1)! - resident![1]!;
    expect(growth).toBeLessThan(16 * 2 ** 20);
  },
  180_000,
);

/** Runs the command line as a process of its own, under Bun or Deno. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = new URL("../../", import.meta.url);
const MOD = fileURLToPath(new URL("mod.ts", ROOT));

/** How each runtime is started on a script. */
export const RUNTIMES: Readonly<Record<"bun" | "deno", readonly string[]>> = {
  bun: [process.execPath],
  deno: [fileURLToPath(new URL("node_modules/.bin/deno", ROOT)), "run", "-A"],
};

/** What a finished command left. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A started command. */
export function start(args: readonly string[], runtime: keyof typeof RUNTIMES = "bun") {
  return Bun.spawn([...RUNTIMES[runtime], MOD, ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
}

/** Runs a command to its end. */
export async function run(
  args: readonly string[],
  runtime: keyof typeof RUNTIMES = "bun",
): Promise<Finished> {
  const child = start(args, runtime);
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

/** A path in test/fixtures. */
export function fixture(path: string): string {
  return fileURLToPath(new URL(`test/fixtures/${path}`, ROOT));
}

/** Calls `body` with a fresh folder that is removed afterwards. */
export async function inFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "fsdp-test-"));
  try {
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The objects of a JSON lines file. */
export async function readLog(path: string): Promise<Record<string, number>[]> {
  const lines = (await Bun.file(path).text()).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Record<string, number>);
}

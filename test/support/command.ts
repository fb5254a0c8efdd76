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
  deno: [denoPath(), "run", "-A"],
};

/** The binary itself: npm's `deno` is a script around it that a signal would end alone. */
function denoPath(): string {
  const [path] = new Bun.Glob("node_modules/@deno/*/deno{,.exe}").scanSync(fileURLToPath(ROOT));
  if (path === undefined) throw new Error("deno is not installed: run bun install");
  return fileURLToPath(new URL(path, ROOT));
}

/** What a finished command left. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs. */
export type Started = Bun.Subprocess<"ignore", "pipe", "pipe">;

/** Starts a command. */
export function start(
  args: readonly string[],
  runtime: keyof typeof RUNTIMES = "bun",
  env: Readonly<Record<string, string>> = {},
): Started {
  return Bun.spawn([...RUNTIMES[runtime], MOD, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, ...env },
  });
}

/** Runs a command to its end. */
export async function run(
  args: readonly string[],
  runtime: keyof typeof RUNTIMES = "bun",
  env: Readonly<Record<string, string>> = {},
): Promise<Finished> {
  const child = start(args, runtime, env);
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

import { describe, expect, test } from "bun:test";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("./flood-program.ts", import.meta.url));
const DENO = fileURLToPath(new URL("../../../node_modules/.bin/deno", import.meta.url));
const RUNTIMES: readonly [string, readonly string[]][] = [
  ["bun", [process.execPath]],
  ["deno", [DENO, "run", "-A"]],
];

const flood = (runtime: readonly string[], ...options: string[]) =>
  Bun.spawn([...runtime, PROGRAM, "flood", ...options], { stdout: "pipe", stderr: "pipe" });

describe.each(RUNTIMES)("processOutput under %s", (_, runtime) => {
  test.each(["--no-pause", "--pause"])("ends quietly when the reader goes away (%s)", async (pause) => {
    const child = flood(runtime, pause);
    const reader = child.stdout.getReader();
    const first = await reader.read();
    expect(new TextDecoder().decode(first.value)).toStartWith("line 0 x");
    await reader.cancel();
    expect([await child.exited, await new Response(child.stderr).text()]).toEqual([0, ""]);
  });

  test("a slow reader gets every line before the process exits with its code", () => {
    // By a shell, because Bun.spawn reads ahead.
    const script = '{ "$@"; echo "exit $?" >&2; } | { sleep 0.5; wc -l; }';
    const { stdout, stderr } = Bun.spawnSync([
      "sh",
      "-c",
      script,
      "sh",
      ...runtime,
      PROGRAM,
      "flood",
      "--lines=20000",
    ]);
    expect([Number(stdout.toString()), stderr.toString()]).toEqual([20_000, "exit 3\n"]);
  });
});

import { describe, expect, test } from "bun:test";
import { fileURLToPath } from "node:url";
import { BACKEND, CHECKPOINTER, COMMAND, PROGRAM, TRANSPORT } from "../core/contracts/plugin.ts";
import type { RankContext } from "../core/contracts/transport.ts";
import { rankProgram } from "../core/runtime/rank-program.ts";
import { registry } from "../mod.ts";

const MOD = new URL("../mod.ts", import.meta.url);
const DENO = fileURLToPath(new URL("../node_modules/.bin/deno", import.meta.url));
const RUNTIMES: readonly [string, readonly string[]][] = [
  ["bun", [process.execPath]],
  ["deno", [DENO, "run", "-A"]],
];

function run(argv: readonly string[]) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...argv]);
  // Dawn itself prints about limits that it lowers.
  const said = stderr.toString().replace(/^Warning: maxDynamic.*\n/gm, "");
  return { exitCode, stdout: stdout.toString(), stderr: said };
}

describe("the default registry", () => {
  test("holds the built-in plugins and knows its own module", () => {
    expect(registry.root).toBe(MOD.href);
    expect(registry.names(BACKEND)).toContain("cpu");
    expect(registry.names(TRANSPORT)).toContain("single");
    expect(registry.names(CHECKPOINTER)).toContain("native");
    expect(registry.names(COMMAND)).toContain("env");
  });

  test("runs a rank program by the module and export that a launcher is given", async () => {
    registry.register(PROGRAM, "mod-test", async ({ rank }, args) => ({ rank, args }));
    const program = rankProgram(registry, "mod-test", "x");
    const module = await import(program.module);
    expect(await module[program.export]({ rank: 1 } as RankContext, program.args)).toEqual({
      rank: 1,
      args: "x",
    });
  });
});

describe.each(RUNTIMES)("mod.ts under %s", (_, runtime) => {
  test("is the command line", () => {
    const { exitCode, stdout, stderr } = run([...runtime, fileURLToPath(MOD), "env", "--json"]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(JSON.parse(stdout).registered.backend).toContain("cpu");
  });

  test("exits with 1 and one line for a mistake", () => {
    const { exitCode, stdout, stderr } = run([...runtime, fileURLToPath(MOD), "env", "--jsn"]);
    expect({ exitCode, stdout, stderr }).toEqual({
      exitCode: 1,
      stdout: "",
      stderr: 'error: unknown option for "env": given "--jsn", closest is "--json"\n',
    });
  });

  test("prints nothing and keeps nothing running when it is imported", () => {
    const code = `await import(${JSON.stringify(MOD.href)})`;
    const argv = runtime.length === 1 ? [...runtime, "-e", code] : [runtime[0]!, "eval", code];
    expect(run(argv)).toEqual({ exitCode: 0, stdout: "", stderr: "" });
  });
});

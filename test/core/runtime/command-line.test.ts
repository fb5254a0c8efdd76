import { describe, expect, test } from "bun:test";
import type { CommandContext, CommandSpec } from "../../../core/contracts/command.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { COMMAND } from "../../../core/contracts/plugin.ts";
import { runCommandLine } from "../../../core/runtime/command-line.ts";
import { createRegistry } from "../../../core/runtime/registry.ts";

const PACKAGE_ROOT = new URL("../../../mod.ts", import.meta.url).href;

/** Runs a command line on a registry with the command `act`, which does what `run` says. */
async function commandLine(argv: readonly string[], run: CommandSpec["run"] = async () => 0) {
  const registry = createRegistry({ root: PACKAGE_ROOT });
  registry.register(COMMAND, "act", {
    summary: "acts",
    positionals: "[SRC]",
    options: {
      steps: { type: "integer", description: "how many", default: 3, min: 1 },
      mode: { type: "string", description: "which way", choices: ["slow", "fast"] },
      data: { type: "string", description: "text ".repeat(40).trim(), many: true, placeholder: "PATH" },
      check: { type: "boolean", description: "checks", default: true },
    },
    run,
  });
  registry.register(COMMAND, "rest", { summary: "rests", options: {}, run: async () => 7 });
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCommandLine(registry, argv, {
    print: (line) => out.push(line),
    printError: (line) => err.push(line),
    drain: async () => {},
  });
  return { code, out, err };
}

describe("runCommandLine", () => {
  test("runs the named command with its parsed options and returns its exit code", async () => {
    let seen: CommandContext | undefined;
    const result = await commandLine(["act", "src", "--steps=5", "--json"], async (context) => {
      seen = context;
      context.print("out");
      context.printError("err");
      return 4;
    });
    expect(result).toEqual({ code: 4, out: ["out"], err: ["err"] });
    expect(seen).toMatchObject({ options: { steps: 5, json: true, check: true }, positionals: ["src"] });
    expect(await commandLine(["rest"])).toMatchObject({ code: 7 });
  });

  test("without a command, or with --help, lists the commands with their summaries", async () => {
    for (const argv of [[], ["--help"], ["-h"]]) {
      const { code, out, err } = await commandLine(argv);
      expect({ code, err }).toEqual({ code: 0, err: [] });
      expect(out).toContain("  act   acts");
      expect(out).toContain("  rest  rests");
    }
  });

  test("a command's help shows types, defaults, choices and ranges, and runs nothing", async () => {
    const { code, out } = await commandLine(["act", "--bogus", "--help"], () => {
      throw new ShapeError("must not run");
    });
    expect(code).toBe(0);
    const text = out.join("\n");
    expect(out[0]).toBe("usage: fsdp act [SRC] [options]");
    expect(text).toContain("  --steps INTEGER  how many (from 1; default 3)");
    expect(text).toContain("  --mode TEXT      which way (one of slow, fast)");
    expect(text).toContain("  --data PATH...   text text");
    expect(text).toContain("  --no-check       checks (on by default)");
    expect(text).toContain("  --json           print JSON");
    expect(text).toContain("  --help           print this");
    expect(Math.max(...out.map((line) => line.length))).toBeLessThan(110);
  });

  test("--version prints the package's version", async () => {
    const { version } = await Bun.file(new URL("package.json", PACKAGE_ROOT)).json();
    expect(await commandLine(["--version"])).toEqual({ code: 0, out: [version], err: [] });
  });

  test("an unknown command is one line that lists what there is", async () => {
    expect(await commandLine(["akt"])).toEqual({
      code: 1,
      out: [],
      err: ['error: unknown command: given "akt", closest is "act", allowed are "act", "rest"'],
    });
  });

  test("an error of the project is exactly one line, whatever its message holds", async () => {
    const { code, out, err } = await commandLine(["act"], async () => {
      throw new ShapeError("bad\n  shape: \u001b[31mred\r\nend");
    });
    expect({ code, out, err }).toEqual({ code: 1, out: [], err: ["error: bad shape: [31mred end"] });
    expect((await commandLine(["act", "--stepz"])).err).toHaveLength(1);
  });

  test("an unexpected error shows its stack", async () => {
    const { code, err } = await commandLine(["act"], () => {
      throw new TypeError("surprise");
    });
    expect(code).toBe(1);
    expect(err[0]).toContain("TypeError: surprise");
    expect(err[0]).toContain("command-line.test.ts");
  });
});

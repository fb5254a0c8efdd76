import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { CommandSpec } from "../../../core/contracts/command.ts";
import { ConfigError, PluginError } from "../../../core/contracts/errors.ts";
import {
  asksForHelp,
  ownArguments,
  parseArguments,
  pluginPaths,
} from "../../../core/runtime/parse-options.ts";

const SPEC: CommandSpec = {
  summary: "does it",
  positionals: "[PATH...]",
  options: {
    steps: { type: "integer", description: "steps", default: 10, min: 1, max: 100 },
    lr: { type: "number", description: "rate" },
    "batch-size": { type: "integer", description: "rows" },
    fsdp_version: { type: "integer", description: "version", min: 1, max: 2 },
    optimizer: { type: "string", description: "which", choices: ["adamw", "sgd"], default: "adamw" },
    data: { type: "string", description: "text", many: true },
    offload: { type: "boolean", description: "offload", default: false },
    checks: { type: "boolean", description: "checks", default: true },
  },
  run: async () => 0,
};
const parse = (...argv: string[]) => parseArguments("train", SPEC, argv);
const optionsFrom = (...argv: string[]) => parse(...argv).options;

describe("parseArguments", () => {
  test("without arguments gives the defaults and says that nothing was given", () => {
    const { options, given, positionals } = parse();
    expect(options).toEqual({
      steps: 10,
      lr: undefined,
      "batch-size": undefined,
      fsdp_version: undefined,
      optimizer: "adamw",
      data: undefined,
      offload: false,
      checks: true,
      plugin: undefined,
      json: false,
    });
    expect([given.size, positionals.length]).toEqual([0, 0]);
  });

  test("a value may follow a space or an equals sign; the last one counts", () => {
    expect(optionsFrom("--steps", "3").steps).toBe(3);
    expect(optionsFrom("--steps=3", "--steps=4").steps).toBe(4);
    expect(parse("--steps=3").given).toEqual(new Set(["steps"]));
  });

  test("- and _ are the same in names, and values arrive under the declared one", () => {
    for (const name of ["--fsdp-version", "--fsdp_version"])
      expect(optionsFrom(name, "2").fsdp_version).toBe(2);
    for (const name of ["--batch-size", "--batch_size"])
      expect(optionsFrom(`${name}=8`)["batch-size"]).toBe(8);
  });

  test("booleans are set, negated, or given a word", () => {
    expect(optionsFrom("--offload").offload).toBe(true);
    expect(optionsFrom("--no-checks").checks).toBe(false);
    expect(optionsFrom("--no_checks").checks).toBe(false);
    expect(optionsFrom("--offload=true", "--checks=False")).toMatchObject({ offload: true, checks: false });
    expect(optionsFrom("--offload", "false", "--json")).toMatchObject({ offload: false, json: true });
    expect(parse("--offload", "maybe").positionals).toEqual(["maybe"]);
    expect(() => parse("--no-checks=true")).toThrow(
      'invalid value for option "--no-checks" of "train": given "true"',
    );
    expect(() => parse("--offload=maybe")).toThrow('given "maybe", allowed are "true", "false"');
    expect(() => parse("--no-steps")).toThrow(ConfigError);
  });

  test("an option with many values takes them up to the next option, and may be repeated", () => {
    const { options, positionals } = parse("--data", "a", "b", "--steps", "2", "--data=c", "--", "d");
    expect(options.data).toEqual(["a", "b", "c"]);
    expect(positionals).toEqual(["d"]);
  });

  test("negative numbers are values, and -- ends the options", () => {
    expect(optionsFrom("--lr", "-1e-3").lr).toBe(-0.001);
    expect(optionsFrom("--lr", "-.5").lr).toBe(-0.5);
    expect(parse("a", "-", "--", "--steps", "-h").positionals).toEqual(["a", "-", "--steps", "-h"]);
  });

  test("numbers are decimal, finite, whole where they must be, and in range", () => {
    for (const text of [
      "",
      " 1",
      "0x10",
      "1.5",
      "NaN",
      "Infinity",
      "1e400",
      "9007199254740993",
      "0",
      "101",
      "two",
    ]) {
      expect(() => parse(`--steps=${text}`)).toThrow(
        new ConfigError(
          `invalid value for option "--steps" of "train": given ${JSON.stringify(text)}, allowed are integers from 1 to 100`,
        ),
      );
    }
    expect(optionsFrom("--steps=1e2").steps).toBe(100);
    expect(() => parse("--lr=1e400")).toThrow("allowed are numbers");
  });

  test("every number survives printing and parsing", () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
        expect(optionsFrom("--lr", String(value)).lr).toBe(Number(String(value)));
      }),
    );
  });

  test("choices are enforced", () => {
    expect(optionsFrom("--optimizer", "sgd").optimizer).toBe("sgd");
    expect(() => parse("--optimizer", "adam")).toThrow('given "adam", allowed are "adamw", "sgd"');
  });

  test("an unknown option is named with the closest known one", () => {
    expect(() => parse("--stepz", "3")).toThrow(
      new ConfigError('unknown option for "train": given "--stepz", closest is "--steps"'),
    );
    expect(() => parse("-steps")).toThrow('given "-steps", closest is "--steps"');
    expect(() => parse("--zzzzzz=1")).toThrow(
      'given "--zzzzzz", allowed are those that "train --help" lists',
    );
    for (const name of ["--constructor", "--__proto__", "-x"]) expect(() => parse(name)).toThrow(ConfigError);
  });

  test("a missing value is an error, also before another option", () => {
    for (const argv of [["--steps"], ["--steps", "--lr", "1"], ["--data"], ["--data", "--", "x"]]) {
      expect(() => parse(...argv)).toThrow(
        `missing value for option "${argv[0]}" of "train": given none, allowed`,
      );
    }
  });

  test("no input makes it throw anything but a config error", () => {
    const word = fc.oneof(
      fc.constantFrom("--steps", "--data", "--no-checks", "--", "-", "true", "1"),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(word), (argv) => {
        try {
          parse(...argv);
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("options that Accelerate and torchrun have", () => {
  const spec: CommandSpec = {
    ...SPEC,
    options: {
      ranks: { type: "integer", description: "ranks", default: 1, aliases: ["nproc", "num_processes"] },
      reshard: { type: "string", description: "free or keep", flag: true },
      settings: { type: "string", description: "settings", many: true },
      use: { type: "string", description: "use it", repeat: true },
      offload: { type: "boolean", description: "offload" },
    },
  };
  const parsed = (...argv: string[]) => parseArguments("x", spec, argv);

  test("an option may have other names, which arrive under its own", () => {
    for (const name of ["--ranks", "--nproc", "--num-processes", "--num_processes"]) {
      const { options, given } = parsed(name, "3");
      expect(options.ranks).toBe(3);
      expect(given).toEqual(new Set(["ranks"]));
    }
    const clash: CommandSpec = { ...spec, options: { ...spec.options, nproc: spec.options.ranks! } };
    expect(() => parseArguments("x", clash, [])).toThrow(PluginError);
  });

  test("a string that is a flag takes true, false and numbers, and nothing else that follows", () => {
    expect(parsed("--reshard").options.reshard).toBe("true");
    expect(parsed("--no-reshard").options.reshard).toBe("false");
    expect(parsed("--reshard", "2").options.reshard).toBe("2");
    expect(parsed("--reshard=FULL_SHARD").options.reshard).toBe("FULL_SHARD");
    expect(parsed("--reshard", "a").positionals).toEqual(["a"]);
  });

  test("a repeated option takes one value each time", () => {
    const { options, positionals } = parsed("--use", "a", "b", "--use=c");
    expect(options.use).toEqual(["a", "c"]);
    expect(positionals).toEqual(["b"]);
  });

  test("what follows a script is the script's, whatever it looks like", () => {
    const launch: CommandSpec = { ...spec, passThrough: true, positionals: "SCRIPT [ARGS...]" };
    const argv = ["--settings", "a=1", "--ranks=2", "train.ts", "--ranks", "9", "--help", "--", "-x"];
    const { options, positionals } = parseArguments("launch", launch, argv);
    expect(options).toMatchObject({ settings: ["a=1"], ranks: 2 });
    expect(positionals).toEqual(["train.ts", "--ranks", "9", "--help", "--", "-x"]);
    expect(ownArguments("launch", launch, argv)).toEqual(["--settings", "a=1", "--ranks=2", "train.ts"]);
    expect(ownArguments("launch", launch, ["--bogus", "--help", "x"])).toEqual(["--bogus", "--help", "x"]);
    expect(ownArguments("x", spec, argv)).toEqual(argv);
  });

  test("plugins are found before the command is known", () => {
    expect(pluginPaths(["--plugin", "a.ts", "act", "--plugin=b.ts", "--", "--plugin", "c.ts"])).toEqual([
      "a.ts",
      "b.ts",
    ]);
    expect(pluginPaths(["--plugin", "--json"])).toEqual([]);
  });
});

describe("positionals", () => {
  const count = (positionals: string | undefined, given: string[]) => {
    const { positionals: _, ...spec } = SPEC;
    return parseArguments("copy", positionals === undefined ? spec : { ...spec, positionals }, given)
      .positionals.length;
  };

  test("their number fits the usage line", () => {
    expect(count("SRC OUT", ["a", "b"])).toBe(2);
    expect(count("SRC [OUT]", ["a"])).toBe(1);
    expect(count("PATH...", ["a", "b", "c"])).toBe(3);
    expect(count("SCRIPT [ARGS...]", ["a"])).toBe(1);
    expect(() => count("SRC OUT", ["a"])).toThrow(
      'missing argument for "copy": given 1, allowed are "SRC OUT"',
    );
    expect(() => count("PATH...", [])).toThrow("missing argument");
    expect(() => count("SRC", ["a", "b"])).toThrow(
      'unexpected argument for "copy": given "b", allowed are "SRC"',
    );
    expect(() => count(undefined, ["a"])).toThrow('given "a", allowed are options only');
  });
});

describe("tables", () => {
  test("help is found anywhere before --", () => {
    expect(asksForHelp(["--bogus", "-h"])).toBe(true);
    expect(asksForHelp(["a", "--", "--help"])).toBe(false);
  });

  test("a command's own json option takes the place of the common one", () => {
    const spec: CommandSpec = { ...SPEC, options: { json: { type: "string", description: "file" } } };
    expect(parseArguments("x", spec, ["--json", "f"]).options).toEqual({ json: "f", plugin: undefined });
  });

  test("a default of an option with many values arrives as an array", () => {
    const spec: CommandSpec = { ...SPEC, options: { data: { ...SPEC.options.data!, default: "x" } } };
    expect(parseArguments("x", spec, []).options.data).toEqual(["x"]);
  });

  test("two options that only - and _ tell apart are the plugin's mistake", () => {
    const flag = { type: "boolean", description: "" } as const;
    const spec: CommandSpec = { ...SPEC, options: { "a-b": flag, a_b: flag } };
    expect(() => parseArguments("x", spec, [])).toThrow(PluginError);
  });
});

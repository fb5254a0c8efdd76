/** One table: every way to say a thing says the same. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import type { CommandSpec } from "../../../../core/contracts/command.ts";
import { ConfigError } from "../../../../core/contracts/errors.ts";
import { commandHelp } from "../../../../core/runtime/command-help.ts";
import { parseArguments } from "../../../../core/runtime/parse-options.ts";
import { COMMAND_OPTIONS } from "../../../../plugins/accelerate/config/command-options.ts";
import { optionByKey } from "../../../../plugins/accelerate/config/file.ts";
import {
  checkGiven,
  firstGiven,
  flagOf,
  type GivenOptions,
  givenByCode,
  givenByCommandLine,
  givenByEnvironment,
} from "../../../../plugins/accelerate/config/given.ts";
import {
  type ConfigOption,
  OPTION_NAMES,
  type OptionName,
  optionOf,
} from "../../../../plugins/accelerate/config/options.ts";
import { resolveOptions } from "../../../../plugins/accelerate/config/resolve.ts";
import { parseValue } from "../../../../plugins/accelerate/config/values.ts";
import { readmeTable } from "./readme-table.ts";

const COMMAND: CommandSpec = { summary: "", options: COMMAND_OPTIONS, run: async () => 0 };

function byCommandLine(...argv: string[]): GivenOptions {
  const { options, given } = parseArguments("x", COMMAND, argv);
  return givenByCommandLine(options, given);
}

/** Values that an option allows, as code has them. */
function valuesOf(option: ConfigOption): fc.Arbitrary<unknown> {
  switch (option.kind) {
    case "boolean":
      return fc.boolean();
    case "integer":
      return fc.nat({ max: 1e9 });
    case "choice":
      return fc.constantFrom(...option.choices!);
    case "names":
      return fc.array(fc.stringMatching(/^[A-Z][A-Za-z0-9]{0,8}$/), { minLength: 1, maxLength: 3 });
    case "pattern":
      return fc.constantFrom("h\\.0", "h\\.\\d+\\.mlp", "wte|wpe");
    case "degree":
      return fc.oneof(fc.boolean(), fc.integer({ min: 2, max: 64 }));
    case "version":
      return fc.oneof(fc.integer({ min: 1, max: 2 }), fc.constantFrom("last-dim", "fsdp9"));
  }
}

const anyOption = fc
  .constantFrom(...OPTION_NAMES)
  .chain((name) => valuesOf(optionOf(name)).map((value) => ({ name, value })));

describe("the option table", () => {
  test("is the one that the README shows", () => {
    const readme = readFileSync(new URL("../../../../plugins/accelerate/README.md", import.meta.url), "utf8");
    expect(readme).toContain(`<!-- options -->\n\n${readmeTable()}\n\n<!-- /options -->`);
  });

  test("has keys, variables and flags that nobody else has, in Accelerate's spelling", () => {
    for (const field of ["key", "env"] as const) {
      expect(new Set(OPTION_NAMES.map((name) => optionOf(name)[field])).size).toBe(OPTION_NAMES.length);
    }
    for (const name of OPTION_NAMES) {
      const { key, env } = optionOf(name);
      expect(key).toMatch(/^fsdp_[a-z_]+$/);
      expect(env).toMatch(/^FSDP_[A-Z_]+$/);
      expect(optionByKey(key)).toBe(name);
      expect(optionByKey(key.slice("fsdp_".length))).toBe(name);
    }
    expect(optionByKey("fsdp_backward_prefetch_policy")).toBe("backwardPrefetch");
  });

  test("shows every option in help, with its default and its values", () => {
    const help = commandHelp("train", COMMAND).join("\n").replace(/\s+/g, " ");
    for (const name of OPTION_NAMES) {
      const { kind, choices, default: value } = optionOf(name);
      expect(help).toContain(
        kind === "boolean" && value === true ? `--no-${flagOf(name)}` : `--${flagOf(name)}`,
      );
      if (choices !== undefined) expect(help).toContain(`one of ${choices.join(", ")}`);
    }
    expect(help).toContain("default 100000000");
    expect(help).toContain("default FULL_SHARD with version 1");
  });

  test("defaults pass their own checks", () => {
    for (const name of OPTION_NAMES) {
      const { default: value, v1 } = optionOf(name);
      if (value !== undefined) expect(parseValue(name, value, "default")).toEqual(value as never);
      if (v1?.default !== undefined)
        expect(parseValue(name, v1.default, "default")).toEqual(v1.default as never);
    }
  });

  test("a value means the same in code, environment, config file and on the command line", () => {
    fc.assert(
      fc.property(anyOption, ({ name, value }) => {
        const text = Array.isArray(value) ? value.join(",") : String(value);
        const { env } = optionOf(name);
        const sources: readonly GivenOptions[] = [
          givenByCode({ [name]: value }),
          givenByEnvironment({ [env]: text }),
          byCommandLine(`--${flagOf(name)}=${text}`),
          byCommandLine(`--${optionOf(name).key}`, text),
          { [name]: { value, where: "file" } },
          { [name]: { value: text, where: "file" } },
        ];
        for (const source of sources) expect(checkGiven(source)).toEqual({ [name]: value });
      }),
    );
  });

  test("of several sources the first counts: code, command line, environment, file, default", () => {
    const distinct = fc.uniqueArray(fc.nat({ max: 1e6 }), { minLength: 4, maxLength: 4 });
    const present = fc.array(fc.boolean(), { minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(distinct, present, ([code, flag, env, file], [inCode, inFlag, inEnv, inFile]) => {
        const said = firstGiven(
          inCode ? givenByCode({ minNumParams: code }) : {},
          inFlag ? byCommandLine("--fsdp_min_num_params", String(flag)) : {},
          givenByEnvironment(inEnv ? { FSDP_MIN_NUM_PARAMS: String(env) } : {}),
          inFile ? { minNumParams: { value: file, where: "file" } } : {},
        );
        const wanted = inCode ? code : inFlag ? flag : inEnv ? env : inFile ? file : 100_000_000;
        expect(resolveOptions(said).values.minNumParams).toBe(wanted!);
      }),
    );
  });
});

describe("values", () => {
  const value = (name: OptionName, raw: unknown): unknown => parseValue(name, raw, "it");

  test("may be spelled as Accelerate lets them", () => {
    for (const word of ["yes", "Y", "true", "T", "on", "1", " True "])
      expect(value("cpuOffload", word)).toBe(true);
    for (const word of ["no", "N", "false", "F", "off", "0"]) expect(value("cpuOffload", word)).toBe(false);
    expect(value("shardingStrategy", "shard_grad_op")).toBe("SHARD_GRAD_OP");
    expect(value("shardingStrategy", "2")).toBe("SHARD_GRAD_OP");
    expect(value("shardingStrategy", 5)).toBe("HYBRID_SHARD_ZERO2");
    expect(value("stateDictType", "3")).toBe("SHARDED_STATE_DICT");
    expect(value("transformerClsNamesToWrap", "A, B")).toEqual(["A", "B"]);
    expect(value("minNumParams", "1e8")).toBe(1e8);
    expect(value("reshardAfterForward", "4")).toBe(4);
    expect(value("fsdpVersion", "2")).toBe(2);
  });

  test("that are wrong are one clear line that names what was written", () => {
    expect(() => parseValue("cpuOffload", "maybe", "FSDP_OFFLOAD_PARAMS")).toThrow(
      new ConfigError('cannot use FSDP_OFFLOAD_PARAMS: given "maybe", allowed are "true", "false"'),
    );
    expect(() => parseValue("autoWrapPolicy", "SOME_WRAP", "--fsdp-auto-wrap-policy")).toThrow(
      'cannot use --fsdp-auto-wrap-policy: given "SOME_WRAP", allowed are "TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"',
    );
    const wrong: readonly [OptionName, unknown][] = [
      ["minNumParams", -1],
      ["minNumParams", "2.5"],
      ["minNumParams", "lots"],
      ["shardingStrategy", 0],
      ["shardingStrategy", 6],
      ["shardingStrategy", true],
      ["reshardAfterForward", 1],
      ["reshardAfterForward", "FULL_SHARD"],
      ["transformerClsNamesToWrap", "A,,B"],
      ["transformerClsNamesToWrap", 3],
      ["ignoredModules", "h.(0"],
      ["ignoredModules", ""],
      ["fsdpVersion", 0],
      ["fsdpVersion", "-x"],
      ["cpuOffload", null],
      ["cpuOffload", { a: 1 }],
    ];
    for (const [name, raw] of wrong)
      expect(() => value(name, raw)).toThrow(/^cannot use it: given .*allowed/);
  });

  test("of any kind give a checked value or a config error, never anything else", () => {
    fc.assert(
      fc.property(fc.constantFrom(...OPTION_NAMES), fc.anything(), (name, raw) => {
        try {
          expect(value(name, raw)).not.toBeUndefined();
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
          expect((error as ConfigError).message).not.toContain("\n");
        }
      }),
      { numRuns: 500 },
    );
  });
});

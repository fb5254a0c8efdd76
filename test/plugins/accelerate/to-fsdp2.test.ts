import { describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { parse } from "yaml";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { convertToFsdp2 } from "../../../plugins/accelerate/to-fsdp2.ts";
import { fixture, inFolder, run } from "../../support/command.ts";

const FIXTURES = ["already-2", "full-shard", "grad-op-size"];
const read = (name: string) => readFileSync(fixture(`accelerate-configs/${name}.yaml`), "utf8");
const convert = (text: string) => convertToFsdp2(text, "a.yaml");
/** The converted `fsdp_config`. */
const section = (lines: string): unknown => {
  const text = `fsdp_config:\n${lines.replace(/^/gm, "  ")}\nother: 1\n`;
  return parse(convert(text).text).fsdp_config;
};

describe("convertToFsdp2", () => {
  for (const name of FIXTURES) {
    test(`gives the keys and values that accelerate to-fsdp2 gives: ${name}`, () => {
      expect(parse(convert(read(name)).text)).toEqual(parse(read(`${name}.fsdp2`)));
    });
  }

  test("maps every strategy, and warns where the meaning changes", () => {
    for (const [strategy, reshard, warning] of [
      ["FULL_SHARD", true, undefined],
      ["SHARD_GRAD_OP", false, undefined],
      ["HYBRID_SHARD", true, "shards over all ranks"],
      ["HYBRID_SHARD_ZERO2", false, "shards over all ranks"],
      ["NO_SHARD", false, "means something else"],
      ["4", true, "shards over all ranks"],
    ] as const) {
      for (const key of ["fsdp_sharding_strategy", "fsdp_reshard_after_forward", "sharding_strategy"]) {
        const { text, warnings } = convert(`fsdp_config:\n  ${key}: ${strategy}\n`);
        expect(parse(text)).toEqual({
          fsdp_config: { fsdp_reshard_after_forward: reshard, fsdp_version: 2 },
        });
        expect(warnings.join()).toContain(warning ?? "");
        expect(warnings).toHaveLength(warning === undefined ? 0 : 1);
      }
    }
  });

  test("drops what version 2 has not, a warning each, and keeps what it does not know", () => {
    const { text, warnings } = convert(
      "fsdp_config:\n  fsdp_backward_prefetch: BACKWARD_PRE\n  use_orig_params: true\n  fsdp_forward_prefetch: true\n  fsdp_sync_module_states: false\n  my_key: [1, 2]\n",
    );
    expect(text).toBe("fsdp_config:\n  my_key: [1, 2]\n  fsdp_version: 2\n");
    expect(warnings.map((warning) => warning.split(" ").slice(0, 3).join(" "))).toEqual([
      "fsdp_backward_prefetch is dropped:",
      "use_orig_params is dropped:",
      "fsdp_forward_prefetch is dropped:",
      "fsdp_sync_module_states is dropped:",
      "my_key is kept",
    ]);
  });

  test("of a strategy in two places takes the strategy's own", () => {
    expect(section("fsdp_reshard_after_forward: true\nfsdp_sharding_strategy: SHARD_GRAD_OP")).toEqual({
      fsdp_reshard_after_forward: false,
      fsdp_version: 2,
    });
    expect(section("fsdp_reshard_after_forward: true\nfsdp_version: 1")).toEqual({
      fsdp_reshard_after_forward: true,
      fsdp_version: 2,
    });
  });

  test("has no local state dicts", () => {
    const { text, warnings } = convert("fsdp_config:\n  fsdp_state_dict_type: LOCAL_STATE_DICT\n");
    expect(text).toContain("fsdp_state_dict_type: SHARDED_STATE_DICT");
    expect(warnings[0]).toContain("version 2 has no LOCAL_STATE_DICT");
  });

  test("changes no line that it does not have to: comments, order and spelling stay", () => {
    const text = [
      "# my run",
      "mixed_precision: no   # full",
      "fsdp_config:   # here",
      "    # how to cut",
      "    fsdp_sharding_strategy: FULL_SHARD   # all of it",
      "    fsdp_backward_prefetch: BACKWARD_PRE # gone",
      "    fsdp_min_num_params: 1e8",
      "    fsdp_transformer_layer_cls_to_wrap: 'A,B'",
      "",
      "list:",
      "- a",
      "-   'b'",
      "",
    ].join("\r\n");
    expect(convert(text).text).toBe(
      text
        .replace("fsdp_sharding_strategy: FULL_SHARD ", "fsdp_reshard_after_forward: true ")
        .replace("    fsdp_backward_prefetch: BACKWARD_PRE # gone\r\n", "")
        .replace("'A,B'\r\n", "'A,B'\r\n    fsdp_version: 2\n"),
    );
  });

  test("knows mappings in braces, and files without a last line break", () => {
    expect(
      convert("fsdp_config: {fsdp_sharding_strategy: SHARD_GRAD_OP, use_orig_params: true, x: 'y'} # c").text,
    ).toBe('fsdp_config: { fsdp_reshard_after_forward: false, x: "y", fsdp_version: 2 } # c');
    expect(convert("fsdp_config:\n  fsdp_offload_params: true").text).toBe(
      "fsdp_config:\n  fsdp_offload_params: true\n  fsdp_version: 2\n",
    );
    expect(convert("fsdp_config:\n  fsdp_version:\n  fsdp_offload_params: true\n").text).toBe(
      "fsdp_config:\n  fsdp_version: 2\n  fsdp_offload_params: true\n",
    );
  });

  test("what is of version 2 already, or has no FSDP, stays to the letter", () => {
    for (const text of [
      "fsdp_config: {fsdp_version: '2', use_orig_params: true}",
      "a: 1",
      "fsdp_config: {}",
    ]) {
      const converted = convert(text);
      expect(converted.text).toBe(text);
      expect(converted.warnings).toHaveLength(1);
    }
  });

  test("refuses what is no config of version 1", () => {
    expect(() => convert("")).toThrow(new ConfigError('cannot convert "a.yaml": the file is empty'));
    expect(() => convert("- 1")).toThrow("it holds no keys");
    expect(() => convert("a: [")).toThrow("not valid YAML");
    expect(() => convert("fsdp_config: {fsdp_sharding_strategy: SOME}")).toThrow('given "SOME"');
  });

  test("gives valid YAML of the same other keys, whatever stands between them", () => {
    const line = fc.oneof(
      fc.constantFrom("", "  # note", "  fsdp_use_orig_params: true", "  fsdp_offload_params: false # x"),
      fc.nat().map((n) => `  key${n}: ${n} # n`),
      fc.nat().map((n) => `  text${n}: |\n    several\n    lines\n`),
      fc.nat().map((n) => `  list${n}:\n    - a\n    - b`),
      fc.nat().map((n) => `  empty${n}:`),
    );
    fc.assert(
      fc.property(fc.uniqueArray(line, { minLength: 1, maxLength: 8 }), fc.boolean(), (lines, more) => {
        const text = `fsdp_config:\n  fsdp_sharding_strategy: FULL_SHARD\n${lines.join("\n")}${more ? "\nafter: 1\n" : ""}`;
        const { fsdp_sharding_strategy: _, fsdp_use_orig_params: __, ...rest } = parse(text).fsdp_config;
        const converted = convert(text).text;
        expect(parse(converted)).toEqual({
          ...parse(text),
          fsdp_config: { ...rest, fsdp_reshard_after_forward: true, fsdp_version: 2 },
        });
        for (const comment of text.match(/# n(ote)?/g) ?? []) expect(converted).toContain(comment);
      }),
    );
  });
});

describe("the command to-fsdp2", () => {
  test("writes where it is told, and replaces only when it is told", async () => {
    await inFolder(async (folder) => {
      const [a, b] = [join(folder, "a.yaml"), join(folder, "b.yaml")];
      copyFileSync(fixture("accelerate-configs/full-shard.yaml"), a);
      const before = readFileSync(a, "utf8");
      const written = await run(["to-fsdp2", "--config_file", a, "--output_file", b]);
      expect(written.code).toBe(0);
      expect(written.stderr.trimEnd().split("\n")).toHaveLength(4);
      expect(parse(readFileSync(b, "utf8"))).toEqual(parse(read("full-shard.fsdp2")));
      expect(readFileSync(a, "utf8")).toBe(before);

      for (const [argv, says] of [
        [["--config_file", a, "--output_file", b], "exists, allowed with --overwrite"],
        [["--config_file", a], "give --output_file, or --overwrite"],
        [["--output_file", b], "--config_file is missing"],
        [["--config_file", join(folder, "no.yaml"), "--overwrite"], "(ENOENT)"],
        [["--config_file", a, "--output_file", join(folder, "no", "c.yaml")], "cannot be written (ENOENT)"],
      ] as const) {
        const { code, stderr } = await run(["to-fsdp2", ...argv]);
        expect(code).toBe(1);
        expect(stderr).toContain(says);
      }

      symlinkSync(a, join(folder, "link.yaml"));
      expect((await run(["to-fsdp2", "--config-file", join(folder, "link.yaml"), "--overwrite"])).code).toBe(
        0,
      );
      expect(parse(readFileSync(a, "utf8"))).toEqual(parse(read("full-shard.fsdp2")));
      expect(readdirSync(folder).sort()).toEqual(["a.yaml", "b.yaml", "link.yaml"]);
    });
  }, 30_000);

  test("leaves no file behind when it fails", async () => {
    await inFolder(async (folder) => {
      writeFileSync(join(folder, "a.yaml"), "fsdp_config: {fsdp_sharding_strategy: SOME}");
      const { code } = await run([
        "to-fsdp2",
        "--config_file",
        join(folder, "a.yaml"),
        "--output_file",
        join(folder, "b.yaml"),
      ]);
      expect(code).toBe(1);
      expect(existsSync(join(folder, "b.yaml"))).toBe(false);
    });
  });
});

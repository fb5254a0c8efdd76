import { expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { ShardingVersion } from "../../../core/runtime/sharding-version.ts";
import { checkSettings, hasSetting } from "../../../core/runtime/version-settings.ts";

const version: ShardingVersion = {
  options: {
    "min-columns": { type: "integer", min: 1, default: 4, description: "columns" },
    tidy: { type: "boolean", description: "tidy" },
    order: { type: "string", choices: ["up", "down"], description: "order" },
  },
  shard: () => {},
};

test("values arrive under declared names, checked, with defaults", () => {
  expect(checkSettings("x", version, {})).toEqual({ "min-columns": 4 });
  expect(checkSettings("x", version, { min_columns: "7", tidy: true, order: "up" })).toEqual({
    "min-columns": 7,
    tidy: true,
    order: "up",
  });
  expect(hasSetting(version, "min_columns")).toBe(true);
  expect(hasSetting({ shard: () => {} }, "min_columns")).toBe(false);
});

test("an unknown name or a bad value names the version and what it allows", () => {
  expect(() => checkSettings("last-dim", version, { min_colums: 1 })).toThrow(
    new ConfigError(
      'unknown option of FSDP version "last-dim": given "min_colums", closest is "min-columns", allowed are "min-columns", "tidy", "order"',
    ),
  );
  expect(() => checkSettings("last-dim", version, { "min-columns": 0 })).toThrow(
    'invalid value for option "min-columns" of FSDP version "last-dim": given 0, allowed are integers from 1',
  );
  expect(() => checkSettings("fsdp2", { shard: () => {} }, { a: 1 })).toThrow("allowed are none");
  expect(() => checkSettings("x", version, { order: ["up"] })).toThrow('given ["up"]');
});

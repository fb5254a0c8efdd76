/**
 * Accelerate's `parallelism_config`, of which this project has data parallelism: how many groups of ranks hold the same
 * shards, and over how many ranks these are cut.
 *
 * @module
 */
import * as v from "valibot";
import type { CommandContext } from "../../../core/contracts/command.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { quoted } from "../../../core/runtime/names.ts";
import type { ConfigFile } from "./file.ts";
import type { Environment } from "./given.ts";
import { type Candidate, firstOf } from "./training-options.ts";

const Size = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.trim(), v.regex(/^\d+$/), v.transform(Number))]),
  v.safeInteger(),
  v.minValue(1),
);

/** Sizes of other kinds of parallelism, which must be 1. */
const OTHERS: readonly string[] = ["tp_size", "cp_size", "sp_size", "ep_size"];

/**
 * Groups of ranks that hold the same shards; `undefined` when nothing says it.
 *
 * @throws ConfigError for sizes whose product is not the number of ranks, and for other kinds of parallelism.
 */
export function replicaGroups(
  context: CommandContext,
  env: Environment,
  file: ConfigFile | undefined,
  worldSize: number,
): number | undefined {
  const size = (name: string): number | undefined => {
    const flag = name.replaceAll("_", "-");
    return sizeOf(
      [context.given.has(flag) ? context.options[flag] : undefined, `--${flag}`],
      variable(env, name),
      [file?.parallelism[name], `${name} in ${quoted(file?.name ?? "")}`],
    );
  };
  const other = OTHERS.find((name) => (size(name) ?? 1) > 1);
  if (other !== undefined) {
    throw new ConfigError(`cannot use ${other}: given ${size(other)}, allowed is 1: ranks divide data only`);
  }
  const replicate = size("dp_replicate_size");
  const shard = size("dp_shard_size");
  if (shard === undefined) return replicate;
  if ((replicate ?? 1) * shard === worldSize) return replicate ?? 1;
  // Accelerate's files say 1 and 1 where nobody chose.
  if (shard === 1 && (replicate ?? 1) === 1) return undefined;
  throw new ConfigError(
    `cannot use dp_replicate_size ${replicate ?? 1} and dp_shard_size ${shard}: their product is not the ${worldSize} ranks of the run`,
  );
}

/** The same for code that no launcher told anything. @throws ConfigError for a bad variable. */
export function replicaGroupsByEnvironment(env: Environment): number | undefined {
  return sizeOf(variable(env, "dp_replicate_size"));
}

function variable(env: Environment, name: string): Candidate {
  const key = `PARALLELISM_CONFIG_${name.toUpperCase()}`;
  return [env[key], key];
}

function sizeOf(...candidates: readonly Candidate[]): number | undefined {
  return firstOf(Size, candidates, "allowed are integers from 1");
}

/**
 * What `launch` was told, on its way to the ranks: `Rank.settings`, which libraries in a script read.
 *
 * @module
 */
import process from "node:process";
import * as v from "valibot";
import { currentRank, isLaunched } from "../../../core/runtime/current-rank.ts";
import { type Environment, type GivenOptions, givenByEnvironment } from "./given.ts";
import { replicaGroupsByEnvironment } from "./parallelism.ts";
import { gradientAccumulation, mixedPrecision, type Precision } from "./training-options.ts";

/** What configuration says to a script: by `launch`, or by the environment alone when the script was started otherwise. */
export interface LaunchSettings {
  readonly fsdp: GivenOptions;
  /** Values of the version's own options. */
  readonly versionSettings: Readonly<Record<string, string | number | boolean>>;
  readonly mixedPrecision: Precision;
  readonly gradientAccumulationSteps: number;
  /** Groups of ranks that hold the same shards. */
  readonly replicas?: number | undefined;
}

const Given = v.object({ value: v.unknown(), where: v.string() });
/** What `launch` passes on, marked so that another library's settings are not taken for it. */
const Settings = v.object({
  kind: v.literal("accelerate"),
  fsdp: v.record(v.string(), Given),
  versionSettings: v.record(v.string(), v.union([v.string(), v.number(), v.boolean()])),
  mixedPrecision: v.picklist(["no", "fp16", "bf16"]),
  gradientAccumulationSteps: v.number(),
  replicas: v.optional(v.number()),
});

/** Settings as `launch` sends them. */
export function packSettings(settings: LaunchSettings): LaunchSettings & { readonly kind: "accelerate" } {
  return { kind: "accelerate", ...settings };
}

/**
 * The settings for the code that calls: those of the launcher, which include the environment, or the environment's.
 *
 * @throws ConfigError for a bad variable.
 */
export function launchSettings(env: Environment = process.env): LaunchSettings {
  const launched = isLaunched() ? v.safeParse(Settings, currentRank().settings) : undefined;
  if (launched?.success === true) return launched.output;
  return {
    fsdp: givenByEnvironment(env),
    versionSettings: {},
    mixedPrecision: mixedPrecision([env.ACCELERATE_MIXED_PRECISION, "ACCELERATE_MIXED_PRECISION"]),
    gradientAccumulationSteps: gradientAccumulation([
      env.ACCELERATE_GRADIENT_ACCUMULATION_STEPS,
      "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    ]),
    replicas: replicaGroupsByEnvironment(env),
  };
}

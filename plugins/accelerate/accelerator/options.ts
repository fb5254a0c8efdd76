/**
 * Options of an accelerator: what code says, else what `launch` and the environment say.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { MixedPrecisionPolicy } from "../../../core/engine/mixed-precision.ts";
import { FullyShardedDataParallelPlugin } from "../config/fsdp-plugin.ts";
import { launchSettings } from "../config/launch-settings.ts";
import { gradientAccumulation, mixedPrecision, type Precision } from "../config/training-options.ts";
import type { Tracker } from "./tracker.ts";

/** Options of `Accelerator.create`. */
export interface AcceleratorOptions {
  /** Registered backend. Default: the launcher's, else `"cpu"`. */
  readonly backend?: string | undefined;
  /** Settings of the backend. */
  readonly backendSettings?: Readonly<Record<string, string>> | undefined;
  /** How models are sharded. Default: a plugin without options of its own. */
  readonly fsdpPlugin?: FullyShardedDataParallelPlugin | undefined;
  /** What units gather, compute and reduce in, unless the plugin says. Default: the launcher's, else `"no"`. */
  readonly mixedPrecision?: Precision | undefined;
  /** Microbatches whose gradients are averaged for one step. Default: the launcher's, else 1. */
  readonly gradientAccumulationSteps?: number | undefined;
  /** A loader's `batchSize` is that of all ranks together. Default false. */
  readonly splitBatches?: boolean | undefined;
  /** Of weights, data and dropout, the same on every rank. Default: the launcher's, else 0. */
  readonly seed?: number | undefined;
  /** Folder, or URL of a run, for checkpoints: `saveState` writes to `checkpoints` in a folder. */
  readonly projectDir?: string | undefined;
  /** After a save only the newest so many checkpoints are kept. Default: all. */
  readonly totalLimit?: number | undefined;
  /** Where `log` writes: paths of JSON lines files, or trackers. */
  readonly logWith?: string | Tracker | readonly (string | Tracker)[] | undefined;
}

/** Options as they hold. */
export interface ResolvedOptions {
  readonly fsdpPlugin: FullyShardedDataParallelPlugin;
  readonly precision: Precision;
  /** What `precision`, or the plugin, says to units. */
  readonly policy: MixedPrecisionPolicy | undefined;
  readonly accumulation: number;
}

const POLICIES: Readonly<Record<Precision, MixedPrecisionPolicy | undefined>> = {
  no: undefined,
  fp16: { paramDtype: "float16", reduceDtype: "float16" },
  bf16: { paramDtype: "bfloat16", reduceDtype: "bfloat16" },
};

/** Checks options and fills in what they leave out. @throws ConfigError for a value that is not allowed. */
export function resolveAcceleratorOptions(options: AcceleratorOptions): ResolvedOptions {
  const settings = launchSettings();
  const precision = mixedPrecision(
    [options.mixedPrecision, "mixedPrecision"],
    [settings.mixedPrecision, "the launcher's mixed precision"],
  );
  const accumulation = gradientAccumulation(
    [options.gradientAccumulationSteps, "gradientAccumulationSteps"],
    [settings.gradientAccumulationSteps, "the launcher's gradient accumulation steps"],
  );
  const { totalLimit } = options;
  if (totalLimit !== undefined && !(Number.isSafeInteger(totalLimit) && totalLimit >= 1)) {
    throw new ConfigError(
      `cannot create an Accelerator: given a totalLimit of ${totalLimit}, allowed are integers from 1`,
    );
  }
  const fsdpPlugin = options.fsdpPlugin ?? new FullyShardedDataParallelPlugin();
  if (!(fsdpPlugin instanceof FullyShardedDataParallelPlugin)) {
    throw new ConfigError(
      "cannot create an Accelerator: given an fsdpPlugin of another kind, allowed is a FullyShardedDataParallelPlugin",
    );
  }
  return {
    fsdpPlugin,
    precision,
    policy: fsdpPlugin.mixedPrecisionPolicy ?? POLICIES[precision],
    accumulation,
  };
}

/**
 * Learning rate schedules: pure functions of the step that give a factor, and the scheduler that applies one. The factors
 * are those of `transformers.optimization` (`get_cosine_schedule_with_warmup` and its kin), never below `minRatio`.
 *
 * @module
 */
import * as v from "valibot";
import type { Value } from "../contracts/checkpointer.ts";
import { ConfigError } from "../contracts/errors.ts";
import type { GroupValues } from "./optimizer.ts";
import { atLeastZero } from "./values.ts";

/** The factor of the learning rate for update `step`, which counts from 0. */
export type Schedule = (step: number) => number;

/** Options of a schedule that warms up and then stays. */
export interface WarmupOptions {
  /** Updates over which the factor rises from 0 to 1; 0 by default. */
  readonly warmupSteps?: number;
}

/** Options of a schedule that warms up and then decays. */
export interface WarmupDecayOptions extends WarmupOptions {
  /** Update at which the decay ends. */
  readonly totalSteps: number;
  /** Factor at the end of the decay and after it; 0 by default. */
  readonly minRatio?: number;
}

/** Rises linearly, then stays at 1. @throws ConfigError for values out of range. */
export function warmupConstant(options: WarmupOptions = {}): Schedule {
  return warmupThen({ ...options, totalSteps: Number.MAX_SAFE_INTEGER }, () => 1);
}

/** Rises linearly, then falls linearly to `minRatio`. @throws ConfigError for values out of range. */
export function warmupLinear(options: WarmupDecayOptions): Schedule {
  return warmupThen(options, (progress) => 1 - progress);
}

/** Rises linearly, then falls along half a cosine to `minRatio`. @throws ConfigError for values out of range. */
export function warmupCosine(options: WarmupDecayOptions): Schedule {
  return warmupThen(options, (progress) => 0.5 * (1 + Math.cos(Math.PI * progress)));
}

/** The factor after the warmup is `decay` of the progress, which goes from 0 to 1, squeezed to `minRatio` ... 1. */
function warmupThen(options: WarmupDecayOptions, decay: (progress: number) => number): Schedule {
  const { warmupSteps, totalSteps, minRatio } = checked(options);
  return (step) => {
    if (step < warmupSteps) return step / warmupSteps;
    const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
    return minRatio + (1 - minRatio) * decay(progress);
  };
}

function checked(options: WarmupDecayOptions): Required<WarmupDecayOptions> {
  const { warmupSteps = 0, totalSteps, minRatio = 0 } = options;
  const counts = Number.isSafeInteger(warmupSteps) && Number.isSafeInteger(totalSteps);
  if (!counts || warmupSteps < 0 || totalSteps < warmupSteps) {
    throw new ConfigError(
      `Making a schedule failed: warmupSteps ${warmupSteps} and totalSteps ${totalSteps}, allowed are whole numbers with 0 <= warmupSteps <= totalSteps`,
    );
  }
  if (!(minRatio >= 0 && minRatio <= 1)) {
    throw new ConfigError(`Making a schedule failed: minRatio ${minRatio}, allowed are 0 to 1`);
  }
  return { warmupSteps, totalSteps, minRatio };
}

const SAVED = v.strictObject({
  step: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  baseLRs: v.array(atLeastZero),
});

/**
 * Sets every group's learning rate to its first one times a factor, as `torch.optim.lr_scheduler.LambdaLR`. Call `step`
 * after each optimizer step.
 */
export class LRScheduler {
  readonly #groups: readonly GroupValues[];
  readonly #schedule: Schedule;
  #baseLRs: readonly number[];
  #step = 0;

  /** Remembers the groups' learning rates and sets those of the first update. */
  constructor(optimizer: { readonly groups: readonly GroupValues[] }, schedule: Schedule) {
    this.#groups = optimizer.groups;
    this.#schedule = schedule;
    this.#baseLRs = optimizer.groups.map((group) => group.lr);
    this.#apply();
  }

  /** Learning rates now, one per group. */
  get lastLR(): readonly number[] {
    return this.#groups.map((group) => group.lr);
  }

  /** Goes on to the next update. */
  step(): void {
    this.#step++;
    this.#apply();
  }

  /** What a checkpoint needs. */
  values(): Readonly<Record<string, Value>> {
    return { step: this.#step, baseLRs: this.#baseLRs };
  }

  /** Takes over what `values` gave. @throws ConfigError when it does not fit the optimizer. */
  loadValues(values: unknown): void {
    const result = v.safeParse(SAVED, values);
    if (!result.success || result.output.baseLRs.length !== this.#baseLRs.length) {
      throw new ConfigError(
        `Loading a schedule failed: allowed are step, a whole number >= 0, and baseLRs, ${this.#baseLRs.length} numbers >= 0`,
      );
    }
    this.#step = result.output.step;
    this.#baseLRs = result.output.baseLRs;
    this.#apply();
  }

  #apply(): void {
    const factor = this.#schedule(this.#step);
    for (const [i, group] of this.#groups.entries()) group.lr = this.#baseLRs[i]! * factor;
  }
}

/**
 * Dynamic loss scaling for 16-bit gradients, as `torch.amp.GradScaler`: the loss is multiplied by a factor so that small
 * gradients survive rounding; a step whose gradients overflowed is dropped and the factor halved; after a long run of
 * good steps it is doubled.
 *
 * @module
 */
import * as v from "valibot";
import type { Value } from "../contracts/checkpointer.ts";
import { ConfigError } from "../contracts/errors.ts";

/** Options of a scaler. */
export interface GradScalerOptions {
  /** First factor. Default 65536. */
  readonly initScale?: number;
  /** Multiplies the factor after `growthInterval` good steps. Default 2. */
  readonly growthFactor?: number;
  /** Multiplies the factor after a bad step. Default 0.5. */
  readonly backoffFactor?: number;
  /** Good steps in a row before the factor grows. Default 2000. */
  readonly growthInterval?: number;
}

const SAVED = v.strictObject({
  scale: v.pipe(v.number(), v.gtValue(0)),
  goodSteps: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
});

/** Holds the factor. Give it to `backward` as the gradient and to `clipGradNorm` as the loss scale. */
export class GradScaler {
  readonly #options: Required<GradScalerOptions>;
  #scale: number;
  #goodSteps = 0;

  /** @throws ConfigError for values out of range. */
  constructor(options: GradScalerOptions = {}) {
    const { initScale = 65536, growthFactor = 2, backoffFactor = 0.5, growthInterval = 2000 } = options;
    if (
      !(initScale > 0) ||
      !(growthFactor > 1) ||
      !(backoffFactor > 0 && backoffFactor < 1) ||
      !(growthInterval >= 1)
    ) {
      throw new ConfigError(
        `Making a GradScaler failed: initScale ${initScale}, growthFactor ${growthFactor}, backoffFactor ${backoffFactor}, growthInterval ${growthInterval}, allowed are > 0, > 1, between 0 and 1, and >= 1`,
      );
    }
    this.#options = { initScale, growthFactor, backoffFactor, growthInterval };
    this.#scale = initScale;
  }

  /** The factor of the next step. */
  get scale(): number {
    return this.#scale;
  }

  /** Ends a step. @param finite whether all gradients on all ranks were finite: else the step must be dropped. */
  update(finite: boolean): void {
    if (!finite) {
      this.#scale *= this.#options.backoffFactor;
      this.#goodSteps = 0;
    } else if (++this.#goodSteps >= this.#options.growthInterval) {
      this.#scale *= this.#options.growthFactor;
      this.#goodSteps = 0;
    }
  }

  /** What a checkpoint needs. */
  values(): Readonly<Record<string, Value>> {
    return { scale: this.#scale, goodSteps: this.#goodSteps };
  }

  /** Takes over what `values` gave. @throws ConfigError when it is something else. */
  loadValues(values: unknown): void {
    const result = v.safeParse(SAVED, values);
    if (!result.success) {
      throw new ConfigError(
        "Loading a GradScaler failed: allowed are scale, a number > 0, and goodSteps, a whole number",
      );
    }
    this.#scale = result.output.scale;
    this.#goodSteps = result.output.goodSteps;
  }
}

/**
 * A learning rate schedule that an accelerator has prepared: it goes on when the optimizers did.
 *
 * @module
 */
import type { LRScheduler } from "../../../core/optim/schedule.ts";
import type { AcceleratedOptimizer } from "./accelerated-optimizer.ts";
import type { GradientState } from "./gradient-state.ts";

/** A prepared scheduler. `step` may be called for every microbatch. */
export class AcceleratedScheduler {
  /** What was prepared. */
  readonly scheduler: LRScheduler;
  readonly #gradients: GradientState;
  readonly #optimizers: readonly AcceleratedOptimizer[];

  /** @param optimizers those of the accelerator, also ones that are prepared later. */
  constructor(scheduler: LRScheduler, gradients: GradientState, optimizers: readonly AcceleratedOptimizer[]) {
    this.scheduler = scheduler;
    this.#gradients = gradients;
    this.#optimizers = optimizers;
  }

  /** Learning rates now, one for each group. */
  get lastLR(): readonly number[] {
    return this.scheduler.lastLR;
  }

  /** Goes on to the next update, unless gradients are still being accumulated or an optimizer left its step out. */
  step(): void {
    if (!this.#gradients.syncGradients) return;
    if (this.#optimizers.some((optimizer) => optimizer.stepWasSkipped)) return;
    this.scheduler.step();
  }
}

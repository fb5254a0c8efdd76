/**
 * An optimizer that an accelerator has prepared: it steps when a window of accumulation ends, with gradients as they would
 * be without loss scaling, and not at all when those overflowed.
 *
 * @module
 */
import { StateError } from "../../../core/contracts/errors.ts";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import type { Parameter } from "../../../core/nn/parameter.ts";
import type {
  GroupValues,
  Optimizer,
  ParameterGroup,
  ZeroGradOptions,
} from "../../../core/optim/optimizer.ts";
import type { GradientState } from "./gradient-state.ts";

/** A prepared optimizer. `step` and `zeroGrad` may be called for every microbatch. */
export class AcceleratedOptimizer<V extends GroupValues = GroupValues> {
  /** What was prepared. */
  readonly optimizer: Optimizer<V>;
  readonly #gradients: GradientState;
  #stepWasSkipped = false;
  /** Gradients of this backward pass are as they would be without scaling. */
  #unscaledPass = 0;
  #finite = true;
  #stepping = false;

  constructor(optimizer: Optimizer<V>, gradients: GradientState) {
    this.optimizer = optimizer;
    this.#gradients = gradients;
  }

  get groups(): readonly ParameterGroup<V>[] {
    return this.optimizer.groups;
  }

  /** Whether the last step was left out: its gradients had overflowed. */
  get stepWasSkipped(): boolean {
    return this.#stepWasSkipped;
  }

  /** Whether gradients have still to be divided. */
  get isScaled(): boolean {
    const { passes, scaler, divisor } = this.#gradients;
    return this.#unscaledPass !== passes && (scaler !== undefined || divisor !== 1);
  }

  /** All of its parameters. */
  get parameters(): readonly Parameter[] {
    return this.optimizer.groups.flatMap((group) => group.params);
  }

  /** Divides gradients by what the loss was multiplied with, once for each backward pass. Collective. */
  async unscale(): Promise<void> {
    if (this.isScaled) await this.clip(Number.POSITIVE_INFINITY);
  }

  /** `unscale` and clipping of all its gradients in one pass. Collective. Returns the norm before clipping. */
  async clip(maxNorm: number, normType = 2): Promise<number> {
    const { divisor, passes } = this.#gradients;
    const norm = await clipGradNorm(this.parameters, maxNorm, { normType, lossScale: divisor });
    this.#unscaledPass = passes;
    this.#finite = Number.isFinite(norm);
    return norm;
  }

  /**
   * Updates the parameters, if gradients are complete. To be awaited: with a loss scale, all ranks agree whether they are
   * finite.
   */
  async step(): Promise<void> {
    this.#requireIdle("step()");
    const gradients = this.#gradients;
    if (!gradients.syncGradients) return;
    this.#stepping = true;
    try {
      // Without it nothing is awaited, and a step is done when the call returns.
      if (this.isScaled) await this.unscale();
      this.#stepWasSkipped = gradients.scaler !== undefined && !this.#finite;
      if (!this.#stepWasSkipped) this.optimizer.step();
      gradients.stepped(!this.#stepWasSkipped);
    } finally {
      this.#stepping = false;
    }
  }

  /** Frees gradients, or zeroes them, if the window of accumulation is over. */
  zeroGrad(options?: ZeroGradOptions): void {
    this.#requireIdle("zeroGrad()");
    if (this.#gradients.syncGradients) this.optimizer.zeroGrad(options);
  }

  #requireIdle(call: string): void {
    if (!this.#stepping) return;
    throw new StateError(`${call} failed: the optimizer's step() is under way, await it first`);
  }
}

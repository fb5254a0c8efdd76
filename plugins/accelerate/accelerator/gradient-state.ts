/**
 * What accumulation and loss scaling make of gradients: whether a backward pass reduces them, what the loss is multiplied
 * by before it, and what gradients are divided by before they are used.
 *
 * @module
 */
import type { GradScaler } from "../../../core/optim/grad-scaler.ts";
import type { Device } from "../../../core/tensor/device.ts";

/** Gradients of an accelerator's models. */
export class GradientState {
  /** Microbatches of a window, whose gradients are averaged; an epoch's last window may have fewer. */
  readonly steps: number;
  readonly scaler: GradScaler | undefined;
  /** Whether the last microbatch that was begun ends its window. */
  syncGradients = true;
  /** What gradients are to be divided by. */
  divisor = 1;
  /** Backward passes so far. */
  passes = 0;
  readonly #device: Device;
  /** Microbatches of the window that have begun. */
  #count = 0;
  #accumulating = false;

  constructor(steps: number, scaler: GradScaler | undefined, device: Device) {
    this.steps = steps;
    this.scaler = scaler;
    this.#device = device;
    this.#announce();
  }

  /** Microbatches of a window that has not ended. */
  get open(): number {
    return this.syncGradients ? 0 : this.#count;
  }

  /** Begins a microbatch. @param last there will be no more in this epoch. */
  begin(last: boolean): void {
    if (this.syncGradients) this.#count = 0;
    this.#count++;
    this.syncGradients = last || this.#count >= this.steps;
    this.#accumulating = true;
    this.#announce();
  }

  /** Ends what `begin` began. */
  end(): void {
    this.#accumulating = false;
    this.#announce();
  }

  /** Notes a backward pass. Returns what it begins with. */
  backward(): number {
    const scale = this.scaler?.scale ?? 1;
    this.passes++;
    // Losses of a window are divided by `steps`, before it is known that there are fewer.
    this.divisor = this.#accumulating && this.syncGradients ? (scale * this.#count) / this.steps : scale;
    return this.#accumulating ? scale / this.steps : scale;
  }

  /** Ends a step of an optimizer. @param finite whether its gradients were. */
  stepped(finite: boolean): void {
    this.scaler?.update(finite);
    this.#announce();
  }

  /** Takes over a checkpoint's place: between two windows. */
  loaded(): void {
    this.syncGradients = true;
    this.#announce();
  }

  /** Tells operations that make gradients ahead. */
  #announce(): void {
    this.#device.lossScale = (this.scaler?.scale ?? 1) / (this.#accumulating ? this.steps : 1);
  }
}

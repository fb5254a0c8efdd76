/**
 * Schedule: what the units below one root do for each other in a step. It knows the order in which they computed, so
 * that the backward pass gathers one unit ahead, and it ends what a pass leaves open.
 *
 * @module
 */
import type { AnyModule } from "../nn/module.ts";
import type { Device } from "../tensor/device.ts";
import type { BackwardListener } from "../tensor/tape.ts";
import type { Unit } from "./unit.ts";

/** The units of one root. */
export class Schedule implements BackwardListener {
  /** The module whose forward began first. */
  readonly rootModule: AnyModule;
  readonly units: readonly Unit[];
  /** Units whose reduction was started and not ended. */
  readonly reductions: Set<Unit> = new Set();
  readonly #root: Unit | undefined;
  /** Units in the order in which their forward ended, each once. */
  #order: Unit[] = [];
  /** Units in the order in which their forward began, now and in the pass before. */
  #begun: Unit[] = [];
  #begunBefore: readonly Unit[] = [];
  /** Units whose part of the current backward pass is over. */
  readonly #left: Set<Unit> = new Set();
  /** A backward pass ended since the order was begun. */
  #walked = false;

  /** @param root the root module's own unit, when it has parameters of its own. */
  constructor(rootModule: AnyModule, root: Unit | undefined, units: readonly Unit[], device: Device) {
    this.rootModule = rootModule;
    this.#root = root;
    this.units = units;
    for (const unit of units) unit.schedule = this;
    device.backwardListeners.add(this);
  }

  /** The root's forward begins. */
  beginForward(): void {
    this.#begunBefore = this.#begun;
    this.#begun = [];
    if (!this.#walked) return;
    this.#walked = false;
    this.#order = [];
  }

  /** A unit's forward begins, its parameters are there: gather those of the one that came next in the pass before. */
  enteredForward(unit: Unit): void {
    if (!this.#begun.includes(unit)) this.#begun.push(unit);
    const at = this.#begun.length;
    // Only while this pass goes the way of the one before.
    if (unit.forwardPrefetch && this.#begunBefore[at - 1] === unit) this.#begunBefore[at]?.startUnshard();
  }

  /** The root's forward ended: what was gathered ahead and not used is freed. */
  async endForward(): Promise<void> {
    for (const unit of this.units) {
      if (unit.state !== "gathering") continue;
      await unit.unshard();
      unit.reshard();
    }
  }

  /**
   * A unit's forward ended: it is recorded, and its parameters freed unless they stay for the backward pass. PyTorch's
   * rule when nothing was asked: only the root keeps them, as its backward comes next.
   */
  leftForward(unit: Unit): void {
    const recording = unit.device.gradEnabled;
    if (recording && !this.#order.includes(unit)) this.#order.push(unit);
    if (unit.reshardAfterForward ?? !(recording && unit === this.#root)) unit.reshard();
  }

  /** A unit's backward begins, its parameters are there: gather those of the one before it. */
  enteredBackward(unit: Unit): void {
    const next = this.#order[this.#order.indexOf(unit) - 1];
    if (next !== undefined && !this.#left.has(next)) next.startUnshard();
  }

  /** A unit's backward ended. */
  leftBackward(unit: Unit): void {
    this.#left.add(unit);
  }

  /** Ends the reductions that were started. */
  async finishReductions(): Promise<void> {
    for (const unit of [...this.reductions]) await unit.finishReduce();
  }

  async backwardEnd(): Promise<void> {
    this.#left.clear();
    this.#walked = true;
    for (const unit of this.units) {
      // Gathered ahead and not used, or kept and not reached by the loss.
      if (unit.state === "gathering") await unit.unshard();
      unit.reshard();
    }
    await this.finishReductions();
  }

  backwardFailed(): void {
    this.reset();
  }

  /** Back to idle after a failure in forward or backward. */
  reset(): void {
    this.#left.clear();
    this.#walked = true;
    this.reductions.clear();
    for (const unit of this.units) unit.reset();
  }
}

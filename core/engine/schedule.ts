/**
 * Schedule: what the units below one root do for each other in a step. It knows the order in which they computed, so
 * that passes gather ahead, it lets reductions run beside the backward pass, and it ends what a pass leaves open.
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
  /** Whether the end of a backward pass waits for its reductions and forgets the order of the forward pass. */
  isLastBackward = true;
  readonly #root: Unit | undefined;
  #device: Device;
  /** Units in the order in which their forward ended, each once. */
  #order: Unit[] = [];
  /** Units in the order in which their forward began, now and in the pass before. */
  #begun: Unit[] = [];
  #begunBefore: readonly Unit[] = [];
  /** Calls of the root that have begun and not ended: a method of it may call another. */
  #depth = 0;
  /** A backward pass is under way: a forward within it recomputes. */
  #inBackward = false;
  /** The unit whose recomputed forward ended last: its backward may come next. */
  #recomputed: Unit | undefined;
  /** Units whose part of the current backward pass is over. */
  readonly #left: Set<Unit> = new Set();
  /** A backward pass ended since the order was begun. */
  #walked = false;
  /** Units whose reduction was started and not ended, oldest first. */
  #reducing: Unit[] = [];
  /** When the reductions that were started have arrived. */
  #arrived: Promise<void> = Promise.resolve();

  /** @param root the root module's own unit, when it has parameters of its own. */
  constructor(rootModule: AnyModule, root: Unit | undefined, units: readonly Unit[], device: Device) {
    this.rootModule = rootModule;
    this.#root = root;
    this.units = units;
    for (const unit of units) unit.schedule = this;
    this.#device = device;
    device.backwardListeners.add(this);
  }

  /** Hears of no more backward passes, until a forward pass begins again. */
  detach(): void {
    this.#device.backwardListeners.delete(this);
  }

  /** The root's forward begins. */
  beginForward(): void {
    this.#device = this.units[0]!.device;
    this.#device.backwardListeners.add(this);
    this.#depth++;
    this.#begunBefore = this.#begun;
    this.#begun = [];
    if (!this.#walked) return;
    this.#walked = false;
    this.#order = [];
  }

  /** A module's forward begins: its unit's parameters are gathered, and those that come after it asked for. */
  async enterForward(unit: Unit, module: AnyModule): Promise<void> {
    if (this.#inBackward) {
      await this.#enterRecomputed(unit);
      return;
    }
    unit.enteredModule(module);
    unit.startUnshard();
    if (!this.#begun.includes(unit)) this.#begun.push(unit);
    // Behind this unit's own, and before waiting for that: what follows is then on its way as early as can be.
    for (const next of unit.forwardPrefetchUnits ?? this.#nextInForward(unit)) next.startUnshard();
    await unit.unshard();
  }

  /** A module's forward ended: unless others of its unit are still to come, that unit's is over. */
  leaveForward(unit: Unit): void {
    if (this.#inBackward) {
      if (!unit.inBackward) this.#recomputed = unit;
      return;
    }
    if (!unit.leftModule()) return;
    // Of a group that runs by itself, outside the root, more may come, and nothing tells when it ends but backward.
    const wait = unit.partlyRun && (this.#depth > 0 || unit.device.gradEnabled);
    if (!wait) this.#endForwardOf(unit);
  }

  /** The root's forward ended: groups that ran in part are complete, and what was gathered ahead and not used is freed. */
  async endForward(): Promise<void> {
    this.#depth = Math.max(0, this.#depth - 1);
    if (this.#depth > 0) return;
    for (const unit of this.units) {
      if (unit.partlyRun) this.#endForwardOf(unit);
      if (unit.state !== "gathering") continue;
      await unit.unshard();
      unit.reshard();
    }
  }

  backwardBegin(): void {
    // A walk that begins within a forward of this root belongs to what that computes.
    this.#inBackward = this.#depth === 0;
  }

  /** A unit's backward begins, its parameters are there: gather those that come next. */
  enteredBackward(unit: Unit): void {
    const implicit = unit.backwardPrefetch === "pre" ? this.#nextInBackward(unit) : [];
    this.#gatherAhead(unit.backwardPrefetchUnits ?? implicit);
  }

  /** A unit's backward ended. */
  leftBackward(unit: Unit): void {
    this.#left.add(unit);
    if (unit.backwardPrefetch === "post" && unit.backwardPrefetchUnits === undefined) {
      this.#gatherAhead(this.#nextInBackward(unit));
    }
  }

  /** Starts a unit's reduction, as soon as few enough are under way. */
  async reduce(unit: Unit): Promise<void> {
    const most = Math.max(...this.units.map((each) => each.maxReductions));
    while (this.#reducing.length >= most || this.#reducing.includes(unit)) await this.#finishOldest();
    await unit.reducer.start(this.#arrived);
    const { arrived } = unit.reducer;
    if (arrived === undefined) return;
    this.#arrived = arrived;
    this.#reducing.push(unit);
  }

  async backwardEnd(): Promise<void> {
    this.#inBackward = false;
    this.#recomputed = undefined;
    this.#left.clear();
    if (this.#depth > 0) return await this.#finishAll();
    if (!this.isLastBackward) {
      // Replicas are asked when the first part has arrived: before anything that follows asks for theirs.
      if (this.units.some((unit) => unit.shards.replicate !== undefined)) await this.#arrived;
      return;
    }
    this.#walked = true;
    for (const unit of this.units) {
      unit.allRan();
      const ahead = unit.state === "gathering";
      if (ahead) await unit.unshard();
      // Gathered ahead and not used, or kept by forward and not reached by the loss.
      if (ahead || unit.reshardAfterBackward) unit.reshard();
    }
    await this.#finishAll();
  }

  backwardFailed(): void {
    const ours = this.#left.size > 0 || this.units.some((unit) => unit.inBackward);
    this.#inBackward = false;
    // Every root hears of every walk on its device.
    if (ours) this.reset();
  }

  /** Back to idle after a failure in forward or backward. */
  reset(): void {
    this.#depth = 0;
    this.#inBackward = false;
    this.#recomputed = undefined;
    this.#left.clear();
    this.#walked = true;
    this.#begun = [];
    this.#reducing = [];
    this.#arrived = Promise.resolve();
    for (const unit of this.units) unit.reset();
  }

  /** What is computed again within a backward pass keeps its parameters until its own backward, which comes next. */
  async #enterRecomputed(unit: Unit): Promise<void> {
    const before = this.#recomputed;
    if (before !== undefined && before !== unit && !before.inBackward && freesAfterForward(before)) {
      before.reshard();
    }
    this.#recomputed = undefined;
    await unit.unshard();
  }

  /**
   * A unit's forward is over: it is recorded, and its parameters freed unless they stay for the backward pass. PyTorch's
   * rule when nothing was asked: only the root keeps them, as its backward comes next.
   */
  #endForwardOf(unit: Unit): void {
    unit.allRan();
    const recording = unit.device.gradEnabled;
    if (recording && !this.#order.includes(unit)) this.#order.push(unit);
    const frees = unit.reshardAfterForward ?? !(recording && unit === this.#root);
    if (frees !== false) unit.reshard(recording);
  }

  /** The unit that came after this one in the pass before, while this pass goes the same way. */
  #nextInForward(unit: Unit): readonly Unit[] {
    const at = this.#begun.length;
    const next = this.#begunBefore[at];
    return unit.forwardPrefetch && this.#begunBefore[at - 1] === unit && next !== undefined ? [next] : [];
  }

  #nextInBackward(unit: Unit): readonly Unit[] {
    const next = this.#order[this.#order.indexOf(unit) - 1];
    return next === undefined ? [] : [next];
  }

  #gatherAhead(units: readonly Unit[]): void {
    for (const unit of units) if (!this.#left.has(unit) && unit.unshardInBackward) unit.startUnshard();
  }

  async #finishAll(): Promise<void> {
    while (this.#reducing.length > 0) await this.#finishOldest();
  }

  async #finishOldest(): Promise<void> {
    const [oldest] = this.#reducing;
    await oldest?.reducer.finish();
    this.#reducing.shift();
  }
}

function freesAfterForward({ reshardAfterForward }: Unit): boolean {
  return reshardAfterForward !== false;
}

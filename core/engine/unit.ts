/**
 * Unit: the parameters that are gathered and reduced together, and the states they go through in a step.
 *
 * Sharded -> (gather) -> unsharded -> (reshard) -> sharded, twice a step when the unit reshards after forward; after
 * its backward the gradients are reduced and each rank keeps its part. Follows FSDP2's FSDPParamGroup
 * (torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py); how parameters are cut is the Shard's business alone, so
 * FSDP1 runs through here too.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import { ConfigError } from "../contracts/errors.ts";
import type { Shard } from "../contracts/shard.ts";
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { Device } from "../tensor/device.ts";
import type { GradRegion } from "../tensor/tape.ts";
import { type Gathered, Gatherer, type Gathering } from "./gather.ts";
import { averageDivision } from "./gradient-division.ts";
import { Reducer } from "./reduce.ts";
import type { Schedule } from "./schedule.ts";
import type { BackwardPrefetch, ShardModuleOptions } from "./shard-options.ts";
import type { UnitEvent, UnitListener } from "./unit-events.ts";
import { UnitShards } from "./unit-shards.ts";

/** Where a unit stands. */
export type UnitState = "sharded" | "gathering" | "unsharded";

/** A group of parameters that is gathered, resharded and reduced as one. */
export class Unit implements GradRegion {
  /** For messages and events: the class of its module; once a forward pass began, the path from the root. */
  name: string;
  /** Whose calls it serves: gathered for the first of them, freed after the last. */
  readonly modules: readonly AnyModule[];
  readonly shards: UnitShards;
  readonly reducer: Reducer;
  readonly forwardPrefetch: boolean;
  readonly backwardPrefetch: BackwardPrefetch;
  /** Gathered when this one's forward or backward begins; `undefined`: as the prefetch settings say. */
  forwardPrefetchUnits: readonly Unit[] | undefined;
  backwardPrefetchUnits: readonly Unit[] | undefined;
  /** `true`, `false`, the count of neighbours that keep the parameters among them, or `undefined`: not in the root. */
  reshardAfterForward: boolean | number | undefined;
  reshardAfterBackward = true;
  /** Whether its backward gathers parameters; an embedding's needs none. */
  unshardInBackward = true;
  /** Whether a backward pass reduces gradients, or leaves them whole to add up. */
  requiresGradientSync = true;
  /** The neighbours that keep the parameters after forward, once a forward pass began. */
  neighbours: Collective | undefined;
  /** How many reductions may be under way beside this one's, plus one. */
  maxReductions = 1;
  /** The root's order of things, once a forward pass began. */
  schedule: Schedule | undefined;
  listener: UnitListener | undefined;
  readonly #gatherer: Gatherer;
  /** Modules of it that have still to run in this forward pass. */
  readonly #awaited: Set<AnyModule> = new Set();
  /** Forwards of its modules that have begun and not ended. */
  #running = 0;
  #state: UnitState = "sharded";
  #gathering: Gathering | undefined;
  /** Shards were written to while they were being gathered. */
  #stale = false;
  /** This rank's part of what forward had gathered. */
  #kept: Gathered | undefined;
  #inBackward = false;

  /** @throws ConfigError for a `reshardAfterForward` that does not divide the group. */
  constructor(
    name: string,
    modules: readonly AnyModule[],
    parameters: readonly Parameter[],
    options: ShardModuleOptions,
  ) {
    this.name = name;
    this.modules = modules;
    this.reshardAfterForward = checkedReshard(options.reshardAfterForward, options.group.size);
    this.forwardPrefetch = options.forwardPrefetch ?? false;
    this.backwardPrefetch = options.backwardPrefetch ?? "pre";
    const precision = options.precision ?? {};
    this.shards = new UnitShards(name, parameters, options);
    this.#gatherer = new Gatherer(this.shards, precision.paramDtype);
    this.reducer = new Reducer({
      shards: this.shards,
      reduceDtype: precision.reduceDtype,
      division: options.gradientDivision ?? averageDivision,
      keepLowPrecisionGrads: options.keepLowPrecisionGrads ?? false,
      notify: (event) => this.#notify({ ...event, unit: this.name }),
    });
    this.shards.manage({ updated: () => this.#written(), dispose: () => this.#dispose() });
  }

  get state(): UnitState {
    return this.#state;
  }

  get parameters(): readonly Parameter[] {
    return this.shards.parameters;
  }

  get group(): Collective {
    return this.shards.group;
  }

  /** The device that computes. @throws StateError before the model was put on one. */
  get device(): Device {
    return this.shards.compute;
  }

  /** Elements of the whole parameters. */
  get numel(): number {
    return this.parameters.reduce((sum, parameter) => sum + parameter.numel, 0);
  }

  /** Elements that each rank stores, padding included. */
  get shardNumel(): number {
    return this.layouts.reduce((sum, { shardNumel }) => sum + shardNumel, 0);
  }

  /** How its parameters are cut: one layout, or one for each dtype and each rule. */
  get layouts(): readonly Shard[] {
    return this.shards.buckets.map(({ shard }) => shard);
  }

  /** Whether its part of a backward pass has begun and not ended. */
  get inBackward(): boolean {
    return this.#inBackward;
  }

  /** Begins to gather the parameters, if they are not gathered already. */
  startUnshard(): void {
    if (this.#state !== "sharded") return;
    const kept = this.#kept;
    const neighbours = this.neighbours;
    const again = kept !== undefined && neighbours !== undefined;
    const gathering = again ? this.#gatherer.restart(kept, neighbours) : this.#gatherer.start();
    this.#state = "gathering";
    this.#gathering = gathering;
    this.#notify({ kind: "unshard", unit: this.name });
    if (gathering.work === undefined) return;
    const { input, buffer } = gathering;
    const ranks = again ? neighbours.size : this.group.size;
    this.#notify({ kind: "allGather", unit: this.name, numel: input!.numel, dtype: buffer.dtype, ranks });
  }

  /** Gathers the parameters: each holds its whole value until `reshard()`. */
  async unshard(): Promise<void> {
    this.startUnshard();
    const gathering = this.#gathering;
    if (gathering === undefined) return;
    await gathering.work?.wait();
    // Somebody else waited for the same gather, or a failure ended it.
    if (this.#gathering !== gathering) return await this.unshard();
    this.#gathering = undefined;
    this.#state = "sharded";
    if (this.#stale) {
      this.#stale = false;
      dispose(gathering);
      return await this.unshard();
    }
    this.#dropKept();
    const count = this.reshardAfterForward;
    if (typeof count === "number" && this.device.gradEnabled && !this.#inBackward) {
      this.#kept = this.#gatherer.partOf(gathering, count);
    }
    try {
      this.#gatherer.finish(gathering);
    } catch (error) {
      for (const parameter of this.parameters) parameter.dropGathered(this.device);
      throw error;
    }
    this.#state = "unsharded";
  }

  /** Frees the gathered parameters. What `reshardAfterForward` keeps for the backward pass stays if `keep` says so. */
  reshard(keep = false): void {
    if (!keep) this.#dropKept();
    if (this.#state !== "unsharded") return;
    for (const parameter of this.parameters) parameter.dropGathered(this.device);
    this.#state = "sharded";
    this.#notify({ kind: "reshard", unit: this.name });
  }

  /** A module of it begins its forward. */
  enteredModule(module: AnyModule): void {
    if (this.#awaited.size === 0 && this.#running === 0)
      for (const each of this.modules) this.#awaited.add(each);
    this.#awaited.delete(module);
    this.#running++;
  }

  /** A module of it ended its forward. Returns whether none of it runs any more: one may have called another, or itself. */
  leftModule(): boolean {
    // A failure within, which the caller caught, has ended it already.
    this.#running = Math.max(0, this.#running - 1);
    return this.#running === 0;
  }

  /** Whether some, and not all, of its modules ran in this forward pass. */
  get partlyRun(): boolean {
    return this.#awaited.size > 0;
  }

  /** No more modules of it run in this forward pass. */
  allRan(): void {
    this.#awaited.clear();
  }

  async enterBackward(): Promise<void> {
    this.#inBackward = true;
    if (this.unshardInBackward) await this.unshard();
    this.schedule?.enteredBackward(this);
  }

  async leaveBackward(): Promise<void> {
    // First, so that a reduction finds the memory free. Not within a forward of its own, which goes on to compute.
    if (this.reshardAfterBackward && this.#running === 0) this.reshard();
    this.#inBackward = false;
    this.#notify({ kind: "postBackward", unit: this.name });
    if (!this.requiresGradientSync) this.reducer.accumulate();
    else if (this.reducer.pending) await this.schedule?.reduce(this);
    this.schedule?.leftBackward(this);
  }

  /** Back to idle after a failure: nothing gathered, no partial gradients. */
  reset(): void {
    const gathering = this.#gathering;
    this.#gathering = undefined;
    this.#stale = false;
    if (gathering !== undefined) {
      this.#state = "sharded";
      // Its memory belongs to the collective until that has come to an end.
      const free = (): void => dispose(gathering);
      if (gathering.work === undefined) free();
      // A device that was disposed meanwhile has taken its memory along.
      else
        gathering.work
          .wait()
          .then(free, free)
          .catch(() => {});
    }
    this.reshard();
    this.reducer.reset();
    this.#awaited.clear();
    this.#running = 0;
    this.#inBackward = false;
  }

  #dispose(): void {
    if (this.shards.materialized) this.reset();
    this.shards.dispose();
    this.schedule?.detach();
  }

  /** Shards were written to: what was gathered of them is not theirs any more. */
  #written(): void {
    this.#dropKept();
    if (this.#state === "gathering") this.#stale = true;
    else this.reshard();
  }

  #dropKept(): void {
    this.#kept?.buffer.dispose();
    this.#kept = undefined;
  }

  #notify(event: UnitEvent): void {
    this.listener?.(event);
  }
}

/** The setting as the engine knows it. */
function checkedReshard(given: boolean | number | undefined, size: number): boolean | number | undefined {
  if (typeof given !== "number") return given;
  if (!Number.isInteger(given) || given < 1 || size % given !== 0) {
    throw new ConfigError(
      `Sharding failed: reshardAfterForward ${given}, allowed are true, false and numbers that divide the ${size} ranks of the shard group`,
    );
  }
  if (given === 1) return false;
  return given === size ? true : given;
}

function dispose({ input, buffer }: Gathering): void {
  input?.dispose();
  buffer.dispose();
}

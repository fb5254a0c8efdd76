/**
 * FullyShardedDataParallel: FSDP1 as a module around a module, as `torch.distributed.fsdp.FullyShardedDataParallel`.
 *
 * @module
 */
import type { StateTensor } from "../../core/contracts/checkpointer.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { clipGradNorm } from "../../core/engine/clip.ts";
import type { FullModelStateDict } from "../../core/engine/model-state-dict.ts";
import type { FullOptimizerStateDict } from "../../core/engine/optimizer-state-dict.ts";
import { type AnyModule, Module } from "../../core/nn/module.ts";
import type { Optimizer } from "../../core/optim/optimizer.ts";
import type { Device } from "../../core/tensor/device.ts";
import { type FlatParameterHandle, flatParameterHandles } from "./handles.ts";
import { withoutSync } from "./no-sync.ts";
import { fullOptimStateDict, loadFullOptimStateDict, shardedOptimStateDict } from "./optim-state-dict.ts";
import { type FullyShardedDataParallelOptions, NAME } from "./options.ts";
import { shardInPlace, syncBefore } from "./shard-in-place.ts";
import {
  fullStateDict,
  loadFullStateDict,
  loadLocalStateDict,
  localStateDict,
  shardedStateDict,
} from "./state-dict.ts";
import { type SummonOptions, summonFullParams } from "./summon-full-params.ts";
import { materializeFromFirst } from "./sync-module-states.ts";
import { idle, idleRoot, type Wrapped } from "./wrapped.ts";

/** What a state dict holds: whole tensors, this rank's flat shards, or the boxes that lie here. */
export type StateDictType = "FULL_STATE_DICT" | "LOCAL_STATE_DICT" | "SHARDED_STATE_DICT";

/** Options of whole state dicts. */
export interface FullStateDictOptions {
  readonly type?: "FULL_STATE_DICT" | undefined;
  /** Only the first rank has it. Default false. */
  readonly rank0Only?: boolean | undefined;
}

/** What a module's call takes. */
type ArgsOf<M> = M extends Module<infer Args, unknown> ? Args : never;
/** What a module's call gives. */
type ResultOf<M> = M extends Module<never[], infer Result> ? Result : never;

/**
 * A module whose parameters are sharded.
 *
 * Modules below stay what and where they are, under the names that they had; what is sharded is in this one's `module`,
 * so that calling either is the same. Names of parameters and state dicts show nothing of the wrapping.
 */
export class FullyShardedDataParallel<M extends AnyModule> extends Module<ArgsOf<M>, ResultOf<M>> {
  readonly #module: M;
  readonly #wrapped: Wrapped;

  /**
   * Shards `module`: those below that the wrap policy chooses become units, the rest this one's. Then `await to(device)`
   * gives each rank its part of the initial values; a module that has values already keeps its part of them.
   *
   * @throws ConfigError for options that are not allowed, alone or together, or with the model.
   * @throws StateError when the module was sharded already.
   */
  constructor(module: M, options: FullyShardedDataParallelOptions) {
    super();
    if (options.syncModuleStates === true) {
      throw new ConfigError(
        `${NAME} failed: syncModuleStates was given, which takes await FullyShardedDataParallel.create(module, options, device)`,
      );
    }
    this.#module = module;
    this.#wrapped = shardInPlace(module, options, true);
  }

  /**
   * Shards `module` and puts it on a device. Collective with `syncModuleStates`: then the first rank makes, or reads, every
   * value, and the others get their parts.
   *
   * @throws what the constructor throws.
   */
  static async create<M extends AnyModule>(
    module: M,
    options: FullyShardedDataParallelOptions,
    device: Device,
  ): Promise<FullyShardedDataParallel<M>> {
    const { syncModuleStates = false, ...others } = options;
    if (syncModuleStates) await syncBefore(module, options);
    const fsdp = new FullyShardedDataParallel(module, others);
    if (syncModuleStates) await materializeFromFirst(fsdp.#wrapped, device);
    return await fsdp.to(device);
  }

  /** What was wrapped. */
  get module(): M {
    return this.#module;
  }

  /** Its flat parameters and those below it. */
  get handles(): readonly FlatParameterHandle[] {
    return flatParameterHandles(this.#module);
  }

  override forward(...args: ArgsOf<M>): Promise<ResultOf<M>> {
    return this.#module.call(...(args as never[])) as Promise<ResultOf<M>>;
  }

  /** The modules within under the names that they have without this one. */
  override *namedModules(prefix = "", seen: Set<AnyModule> = new Set()): Generator<[string, AnyModule]> {
    const self = this as unknown as AnyModule;
    if (seen.has(self)) return;
    seen.add(self);
    yield [prefix, self];
    yield* this.#module.namedModules(prefix, seen);
  }

  override *namedChildren(): Generator<[string, AnyModule]> {
    yield ["module", this.#module];
  }

  override async to(device: Device): Promise<this> {
    await super.to(device);
    return this;
  }

  /**
   * Runs `body`, in which backward passes reduce nothing: gradients add up whole on each rank, and the first backward
   * pass after it reduces the sum.
   *
   * @throws StateError inside a forward or backward pass, or when another sharded module is around this one.
   */
  noSync<T>(body: () => T | Promise<T>): Promise<T> {
    return withoutSync(this.#wrapped, body);
  }

  /**
   * Scales all gradients in place so that their joint norm over all ranks is at most `maxNorm`. Collective.
   *
   * @param normType order of the norm: a number > 0, or Infinity. Default 2.
   * @returns the norm before clipping, the same on every rank; 0 without any gradient.
   * @throws StateError inside a forward or backward pass, or when another sharded module is around this one.
   * @throws ConfigError when `maxNorm` or `normType` is not positive.
   */
  async clipGradNorm(maxNorm: number, normType = 2): Promise<number> {
    idleRoot(this.#wrapped, "clipGradNorm()");
    return await clipGradNorm(this.parameters(), maxNorm, { normType });
  }

  /**
   * Runs `body` while parameters are whole and in full precision, to look at or to change; this rank's part of what it
   * changes stays. Collective.
   *
   * @throws StateError while a forward or backward pass, or another such call, is under way.
   * @throws ConfigError for options that exclude each other.
   */
  summonFullParams<T>(options: SummonOptions, body: () => T | Promise<T>): Promise<T> {
    return summonFullParams(this.#wrapped, options, body);
  }

  /**
   * What the model holds: whole tensors (FULL, the default), this rank's part of each flat parameter (LOCAL), or live boxes
   * for checkpoints (SHARDED). Collective but for LOCAL and SHARDED.
   *
   * @throws ConfigError for LOCAL with `useOrigParams` or NO_SHARD.
   * @throws StateError while a forward or backward pass or `summonFullParams` is under way.
   */
  stateDict(
    options?: FullStateDictOptions | { readonly type: "LOCAL_STATE_DICT" },
  ): Promise<FullModelStateDict>;
  stateDict(options: { readonly type: "SHARDED_STATE_DICT" }): Promise<readonly StateTensor[]>;
  async stateDict(
    options: { readonly type?: StateDictType | undefined; readonly rank0Only?: boolean | undefined } = {},
  ): Promise<FullModelStateDict | readonly StateTensor[]> {
    idle(this.#wrapped, "stateDict()");
    if (options.type === "SHARDED_STATE_DICT") return shardedStateDict(this.#wrapped);
    if (options.type === "LOCAL_STATE_DICT") return await localStateDict(this.#wrapped);
    return await fullStateDict(this.#wrapped, options.rank0Only ?? false);
  }

  /**
   * Takes over a whole dict, of which each rank keeps its part, or what LOCAL gave on this rank. What SHARDED gives is
   * filled by a checkpointer.
   *
   * @param options `rank0Only`: the first rank alone has the dict, the others give an empty one. Collective then.
   * @throws CheckpointError for a dict that does not fit; nothing is changed then.
   */
  async loadStateDict(
    dict: FullModelStateDict,
    options: {
      readonly type?: Exclude<StateDictType, "SHARDED_STATE_DICT"> | undefined;
      readonly rank0Only?: boolean | undefined;
    } = {},
  ): Promise<void> {
    idle(this.#wrapped, "loadStateDict()");
    if (options.type === "LOCAL_STATE_DICT") return loadLocalStateDict(this.#wrapped, dict);
    await loadFullStateDict(this.#wrapped, dict, options.rank0Only ?? false);
  }

  /**
   * What an optimizer over this module's parameters holds, keyed by the model's names: whole (FULL, the default; collective)
   * or as live boxes for checkpoints (SHARDED).
   *
   * @throws CheckpointError on every rank when ranks differ in what they have state of.
   */
  optimStateDict(optimizer: Optimizer, options?: FullStateDictOptions): Promise<FullOptimizerStateDict>;
  optimStateDict(
    optimizer: Optimizer,
    options: { readonly type: "SHARDED_STATE_DICT" },
  ): Promise<readonly StateTensor[]>;
  async optimStateDict(
    optimizer: Optimizer,
    options: { readonly type?: StateDictType | undefined; readonly rank0Only?: boolean | undefined } = {},
  ): Promise<FullOptimizerStateDict | readonly StateTensor[]> {
    idle(this.#wrapped, "optimStateDict()");
    if (options.type === "SHARDED_STATE_DICT") return shardedOptimStateDict(this.#wrapped, optimizer);
    return await fullOptimStateDict(this.#wrapped, optimizer, options.rank0Only ?? false);
  }

  /**
   * Takes over a whole optimizer state, from any wrapping and any number of ranks.
   *
   * @param options `rank0Only`: the first rank alone has the dict, the others give an empty one. Collective then.
   * @throws CheckpointError for a dict that does not fit the model or the optimizer's groups.
   */
  async loadOptimStateDict(
    optimizer: Optimizer,
    dict: FullOptimizerStateDict,
    options: FullStateDictOptions = {},
  ): Promise<void> {
    idle(this.#wrapped, "loadOptimStateDict()");
    await loadFullOptimStateDict(this.#wrapped, optimizer, dict, options.rank0Only ?? false);
  }
}

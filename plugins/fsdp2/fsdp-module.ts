/**
 * FSDPModule: what a module can do once `fullyShard` has sharded it, as PyTorch's FSDPModule
 * (torch/distributed/fsdp/_fully_shard/_fully_shard.py). A table of the methods stands in README.md.
 *
 * The class and the names of a module stay as they are: the methods are put on the object itself, where neither
 * enumeration nor its parameters see them.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import type { AllReduceHook } from "../../core/engine/reduce.ts";
import { shardedModule, unitOf, unitsBelow } from "../../core/engine/sharded-modules.ts";
import type { Unit } from "../../core/engine/unit.ts";
import type { AnyModule } from "../../core/nn/module.ts";

/** A gather that was asked for. */
export interface UnshardHandle {
  /** Resolves when the parameters are there. May be called again. */
  wait(): Promise<void>;
}

/** Whether a setter reaches the sharded modules below too. */
export interface RecurseOptions {
  /** Default true. */
  readonly recurse?: boolean;
}

/** The methods of a sharded module. Those without `recurse` concern its own group alone, unless they say otherwise. */
export interface FSDPModule {
  /**
   * Gathers the group's parameters, which stay until `reshard()` or the end of their next forward or backward. With
   * `async`, returns at once. Works before the first forward pass.
   */
  unshard(options: { readonly async: true }): UnshardHandle;
  unshard(options?: { readonly async?: false }): Promise<void>;
  /** Frees the group's gathered parameters, after a gather that is under way. */
  reshard(): Promise<void>;
  /**
   * Whether backward passes reduce gradients. If not, they add up whole on each rank (in `reduceDtype`, if that is set),
   * until a pass reduces their sum.
   */
  setRequiresGradientSync(sync: boolean, options?: RecurseOptions): void;
  /** With replicas: whether a reduction includes them, or waits on this rank for the next that does. */
  setRequiresAllReduce(allReduce: boolean, options?: RecurseOptions): void;
  /** Whether parameters are freed after forward; takes the place of what `fullyShard` was told, in the root too. */
  setReshardAfterForward(reshard: boolean, options?: RecurseOptions): void;
  /** Whether parameters are freed after backward, or stay for the next microbatch. */
  setReshardAfterBackward(reshard: boolean, options?: RecurseOptions): void;
  /** For the whole tree, on its root: whether the end of a backward pass waits for reductions and begins a new order. */
  setIsLastBackward(last: boolean): void;
  /** Gathered when this module's forward begins, any number ahead. An empty list: as `forwardPrefetch` says. */
  setModulesToForwardPrefetch(modules: readonly AnyModule[]): void;
  /** Gathered when this module's backward begins, any number ahead. An empty list: the one before in forward's order. */
  setModulesToBackwardPrefetch(modules: readonly AnyModule[]): void;
  /** Whether backward gathers the group's parameters: not needed where no gradient depends on their values. */
  setUnshardInBackward(unshard: boolean): void;
  /** Divides the sum of gradients by this in place of the number of ranks. */
  setGradientDivideFactor(factor: number): void;
  /** Asks collectives for sums only, and divides afterwards. */
  setForceSumReductionForComms(sum: boolean): void;
  /** Called with a rank's gradients between reduce-scatter and all-reduce; may change them in place. */
  setAllReduceHook(hook: AllReduceHook | undefined): void;
  /** How many reductions may hold their input at a time; the largest number below one root holds. Default 1. */
  setReduceScatterMaxInputBuffers(count: number, options?: RecurseOptions): void;
  /** For the whole tree: back to idle after a forward or backward that threw outside of it; pending gradients go. */
  resetIterState(): void;
}

const methods = new WeakMap<AnyModule, FSDPModule>();

/** Whether a module was given to `fullyShard`, and so has the methods of `FSDPModule`. */
export function isFSDPModule<M extends AnyModule>(module: M): module is M & FSDPModule {
  return methods.has(module);
}

/** Gives a module that was just sharded its methods. */
export function addMethods(module: AnyModule): void {
  const added = methodsOf(module);
  methods.set(module, added);
  for (const [name, value] of Object.entries(added)) Object.defineProperty(module, name, { value });
}

function methodsOf(module: AnyModule): FSDPModule {
  const own = unitOf(module);
  const units = ({ recurse = true }: RecurseOptions = {}): readonly Unit[] =>
    recurse ? unitsBelow(module) : own === undefined ? [] : [own];
  const gathering = (): Promise<void> => own?.unshard() ?? Promise.resolve();
  function unshard(options: { readonly async: true }): UnshardHandle;
  function unshard(options?: { readonly async?: false }): Promise<void>;
  function unshard(options: { readonly async?: boolean } = {}): UnshardHandle | Promise<void> {
    if (options.async !== true) return gathering();
    own?.startUnshard();
    return { wait: gathering };
  }
  return {
    unshard,
    async reshard() {
      if (own === undefined || own.state === "sharded") return;
      await own.unshard();
      own.reshard();
    },
    setRequiresGradientSync(sync, options) {
      for (const unit of units(options)) {
        unit.requiresGradientSync = sync;
        unit.reducer.requiresAllReduce = sync;
      }
    },
    setRequiresAllReduce(allReduce, options) {
      for (const unit of units(options)) unit.reducer.requiresAllReduce = allReduce;
    },
    setReshardAfterForward(reshard, options) {
      requireBoolean("setReshardAfterForward", reshard);
      for (const unit of units(options)) unit.reshardAfterForward = reshard;
    },
    setReshardAfterBackward(reshard, options) {
      requireBoolean("setReshardAfterBackward", reshard);
      for (const unit of units(options)) unit.reshardAfterBackward = reshard;
    },
    setIsLastBackward(last) {
      const entry = shardedModule(module)!;
      entry.isLastBackward = last;
      if (entry.schedule !== undefined) entry.schedule.isLastBackward = last;
    },
    setModulesToForwardPrefetch(modules) {
      const ahead = unitsOfList("setModulesToForwardPrefetch", modules);
      if (own !== undefined) own.forwardPrefetchUnits = ahead;
    },
    setModulesToBackwardPrefetch(modules) {
      const ahead = unitsOfList("setModulesToBackwardPrefetch", modules);
      if (own !== undefined) own.backwardPrefetchUnits = ahead;
    },
    setUnshardInBackward(needed) {
      if (own !== undefined) own.unshardInBackward = needed;
    },
    setGradientDivideFactor(factor) {
      if (typeof factor !== "number" || !(factor > 0 && factor < Number.POSITIVE_INFINITY)) {
        throw new ConfigError(`setGradientDivideFactor() failed: ${String(factor)}, allowed are numbers > 0`);
      }
      if (own !== undefined) own.reducer.divideFactor = factor;
    },
    setForceSumReductionForComms(sum) {
      if (own !== undefined) own.reducer.forceSum = sum;
    },
    setAllReduceHook(hook) {
      if (own !== undefined) own.reducer.allReduceHook = hook;
    },
    setReduceScatterMaxInputBuffers(count, options) {
      if (!Number.isSafeInteger(count) || count < 1) {
        throw new ConfigError(
          `setReduceScatterMaxInputBuffers() failed: ${String(count)}, allowed are whole numbers from 1 on`,
        );
      }
      for (const unit of units(options)) unit.maxReductions = count;
    },
    resetIterState() {
      shardedModule(module)?.schedule?.reset();
    },
  };
}

/** The groups of modules to gather ahead; `undefined` for none, which lets other settings rule. */
function unitsOfList(call: string, modules: readonly AnyModule[]): readonly Unit[] | undefined {
  const other = modules.find((module) => !isFSDPModule(module));
  if (other !== undefined) {
    throw new ConfigError(
      `${call}() failed: a ${other.constructor.name} that is not sharded, allowed are modules that fullyShard() returned`,
    );
  }
  return modules.length === 0 ? undefined : [...new Set(modules.flatMap((module) => unitOf(module) ?? []))];
}

function requireBoolean(call: string, given: unknown): void {
  if (typeof given === "boolean") return;
  throw new ConfigError(
    `${call}() failed: ${JSON.stringify(given)}, allowed are true and false; a number only when the module is sharded`,
  );
}

/**
 * Options of `FullyShardedDataParallel`: names, values and defaults of PyTorch's constructor
 * (torch/distributed/fsdp/fully_sharded_data_parallel.py, api.py).
 *
 * @module
 */
import type { Collective } from "../../core/contracts/collective.ts";
import { DTYPES, type DType } from "../../core/contracts/dtype.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import type { ModuleClass, WrapPolicy } from "../../core/engine/wrap-policy.ts";
import { type AnyModule, Module } from "../../core/nn/module.ts";
import { Parameter } from "../../core/nn/parameter.ts";
import type { DeviceMesh } from "../../core/runtime/device-mesh.ts";
import type { Device } from "../../core/tensor/device.ts";

/** What is cut over ranks, and how long gathered parameters stay. */
export type ShardingStrategy =
  /** Parameters, gradients and optimizer state; gathered for forward and again for backward. */
  | "FULL_SHARD"
  /** The same, but gathered parameters stay from forward to backward. */
  | "SHARD_GRAD_OP"
  /** Nothing: every rank holds everything, gradients are all-reduced. */
  | "NO_SHARD"
  /** FULL_SHARD inside a group of ranks, replicated across groups. */
  | "HYBRID_SHARD"
  /** SHARD_GRAD_OP inside a group of ranks, replicated across groups. */
  | "HYBRID_SHARD_ZERO2";

/** When the backward pass gathers the unit that comes next. */
export type BackwardPrefetch =
  /** Before the gradients of the current one are computed: most overlap. */
  | "BACKWARD_PRE"
  /** After them: less memory. */
  | "BACKWARD_POST"
  /** When it is needed. */
  | "NO_PREFETCH";

/** What units compute and communicate in; shards and optimizer state keep the parameters' own dtype. */
export interface MixedPrecision {
  /** Parameters are gathered and computed with in this dtype. Left out: their own. */
  readonly paramDtype?: DType | undefined;
  /** Gradients are reduced in this dtype. Left out: `paramDtype`. */
  readonly reduceDtype?: DType | undefined;
  /** Floating tensors that modules hold beside their parameters are cast to this dtype once. Left out: they are not. */
  readonly bufferDtype?: DType | undefined;
  /** Leave `grad` in the dtype in which it was reduced. Default false: it is cast to the parameter's own. */
  readonly keepLowPrecisionGrads?: boolean | undefined;
  /** Cast floating inputs of every unit to `paramDtype`. Default false. */
  readonly castForwardInputs?: boolean | undefined;
  /** Cast floating inputs of the root to `paramDtype`. Default true. */
  readonly castRootForwardInputs?: boolean | undefined;
  /** With a wrap policy: modules of these classes become units of their own that stay in full precision. */
  readonly moduleClassesToIgnore?: readonly ModuleClass[] | undefined;
}

/** Keeps shards, gradients and optimizer state on another device than the one that computes. */
export interface CPUOffload {
  readonly offloadParams: boolean;
  /** The device of the host's memory; the optimizer's step runs there. */
  readonly device: Device;
}

/** Options that a wrap policy may give to a single unit. */
export interface UnitOptions {
  /** Default `"FULL_SHARD"`. */
  readonly shardingStrategy?: ShardingStrategy | undefined;
  /** Default `"BACKWARD_PRE"`. */
  readonly backwardPrefetch?: BackwardPrefetch | undefined;
  /** Gather the next unit's parameters while one computes, in the order of the pass before. Default false. */
  readonly forwardPrefetch?: boolean | undefined;
  readonly mixedPrecision?: MixedPrecision | undefined;
  readonly cpuOffload?: CPUOffload | undefined;
}

/** Options of `FullyShardedDataParallel`. */
export interface FullyShardedDataParallelOptions extends UnitOptions {
  /** Ranks: one dim to cut over, or, for the hybrid strategies, two: to replicate over, then to cut over. */
  readonly mesh?: DeviceMesh | undefined;
  /** In place of `mesh`: the ranks to cut over or, for the hybrid strategies, `[to cut over, to replicate over]`. */
  readonly processGroup?: Collective | readonly [shard: Collective, replicate: Collective] | undefined;
  /** Which modules below become units of their own. Left out: none. */
  readonly autoWrapPolicy?: WrapPolicy<UnitOptions> | WrapPolicy | undefined;
  /** Have no more than two gathers under way, as this engine never has. Default true. */
  readonly limitAllGathers?: boolean | undefined;
  /**
   * `true`: optimizers see the model's own parameters, each with its hyperparameters and its own `requiresGrad`.
   * `false`, the default: they see one flat parameter a unit.
   */
  readonly useOrigParams?: boolean | undefined;
  /** Every rank starts from rank 0's values. Default false: ranks start from equal seeds. */
  readonly syncModuleStates?: boolean | undefined;
  /** Called for every module with parameters of its own that have no values yet, before they get them; sets their `initializer`. */
  readonly paramInitFn?: ((module: AnyModule) => void) | undefined;
  /** Modules that stay as they are on every rank, with all below them. */
  readonly ignoredModules?: Iterable<AnyModule> | undefined;
  /** In place of `ignoredModules`: parameters, or modules. */
  readonly ignoredStates?: Iterable<Parameter> | Iterable<AnyModule> | undefined;
  /** Told what deserves attention and is no error. Left out: the first rank prints it to stderr. */
  readonly onWarning?: ((message: string) => void) | undefined;
}

const STRATEGIES: readonly ShardingStrategy[] = [
  "FULL_SHARD",
  "SHARD_GRAD_OP",
  "NO_SHARD",
  "HYBRID_SHARD",
  "HYBRID_SHARD_ZERO2",
];
const PREFETCHES: readonly BackwardPrefetch[] = ["BACKWARD_PRE", "BACKWARD_POST", "NO_PREFETCH"];
const UNIT_OPTIONS: readonly (keyof UnitOptions)[] = [
  "shardingStrategy",
  "backwardPrefetch",
  "forwardPrefetch",
  "mixedPrecision",
  "cpuOffload",
];

/** All options, in the order of the README's table. */
export const OPTIONS: readonly (keyof FullyShardedDataParallelOptions)[] = [
  "mesh",
  "processGroup",
  "shardingStrategy",
  "autoWrapPolicy",
  "backwardPrefetch",
  "forwardPrefetch",
  "limitAllGathers",
  "useOrigParams",
  "mixedPrecision",
  "cpuOffload",
  "syncModuleStates",
  "paramInitFn",
  "ignoredModules",
  "ignoredStates",
  "onWarning",
];

/** What a message calls this class. */
export const NAME = "FullyShardedDataParallel()";

/** Options of one unit, complete. */
export interface UnitPlan {
  readonly strategy: ShardingStrategy;
  readonly backwardPrefetch: BackwardPrefetch;
  readonly forwardPrefetch: boolean;
  readonly mixedPrecision: MixedPrecision;
  readonly cpuOffload: CPUOffload | undefined;
}

/** Fills in defaults. @throws ConfigError for a value that is not allowed, and for options that a unit alone cannot have. */
export function unitPlan(options: UnitOptions): UnitPlan {
  const plan = {
    strategy: oneOf("shardingStrategy", options.shardingStrategy ?? "FULL_SHARD", STRATEGIES),
    backwardPrefetch: oneOf("backwardPrefetch", options.backwardPrefetch ?? "BACKWARD_PRE", PREFETCHES),
    forwardPrefetch: options.forwardPrefetch ?? false,
    mixedPrecision: options.mixedPrecision ?? {},
    cpuOffload: options.cpuOffload?.offloadParams === true ? options.cpuOffload : undefined,
  };
  for (const name of ["paramDtype", "reduceDtype", "bufferDtype"] as const) {
    const dtype = plan.mixedPrecision[name];
    if (dtype !== undefined && DTYPES[dtype]?.floating !== true) {
      throw new ConfigError(
        `${NAME} failed: mixedPrecision.${name} is "${dtype}", allowed are floating dtypes`,
      );
    }
  }
  return plan;
}

/** @throws ConfigError for an option that there is not. */
export function checkOptions(options: FullyShardedDataParallelOptions): void {
  requireKnown(options, OPTIONS, "was given");
}

/** @throws ConfigError when a wrap policy gave an option for one unit that only the whole can have, or none. */
export function checkUnitOptions(own: UnitOptions, module: string): void {
  requireKnown(own, UNIT_OPTIONS, `was given by the wrap policy for "${module}"`);
}

function requireKnown(options: object, known: readonly string[], given: string): void {
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new ConfigError(`${NAME} failed: "${unknown}" ${given}, allowed are ${known.join(", ")}`);
}

/** Modules and parameters that stay as they are. */
export interface Ignored {
  /** Those named, and all below them. */
  readonly modules: ReadonlySet<AnyModule>;
  /** Those named, and those of the modules. */
  readonly parameters: ReadonlySet<Parameter>;
}

/**
 * What `ignoredModules` or `ignoredStates` name.
 *
 * @throws ConfigError when both are given, kinds are mixed, or a sharded module is among them.
 */
export function ignoredOf(
  options: Pick<FullyShardedDataParallelOptions, "ignoredModules" | "ignoredStates">,
  isSharded: (module: AnyModule) => boolean,
): Ignored {
  const { ignoredModules, ignoredStates } = options;
  if (ignoredModules !== undefined && ignoredStates !== undefined) {
    throw new ConfigError(
      `${NAME} failed: ignoredModules and ignoredStates were given, allowed is one of them`,
    );
  }
  const given: readonly unknown[] = [...(ignoredModules ?? ignoredStates ?? [])];
  const what = ignoredModules !== undefined ? "ignoredModules" : "ignoredStates";
  const named = given.filter((item): item is AnyModule => item instanceof Module);
  const parameters = given.filter((item): item is Parameter => item instanceof Parameter);
  if (named.length + parameters.length !== given.length || (named.length > 0 && parameters.length > 0)) {
    throw new ConfigError(`${NAME} failed: ${what} must all be modules or all be parameters`);
  }
  if (what === "ignoredModules" && parameters.length > 0) {
    throw new ConfigError(`${NAME} failed: ignoredModules holds parameters, put them into ignoredStates`);
  }
  const modules = new Set(named.flatMap((module) => [...module.modules()]));
  const sharded = [...modules].find(isSharded);
  if (sharded !== undefined) {
    throw new ConfigError(
      `${NAME} failed: ${what} holds a ${sharded.constructor.name} that is sharded already, ignore it where it was sharded`,
    );
  }
  const all = new Set([...parameters, ...named.flatMap((module) => module.parameters())]);
  return { modules, parameters: all };
}

function oneOf<T extends string>(name: string, value: T, allowed: readonly T[]): T {
  if (allowed.includes(value)) return value;
  throw new ConfigError(
    `${NAME} failed: ${name} is ${JSON.stringify(value)}, allowed are ${allowed.join(", ")}`,
  );
}

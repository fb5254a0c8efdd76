/**
 * What state dicts of models and optimizers have in common: kinds, options, and how what is loaded is checked.
 *
 * Two kinds, as in PyTorch's `torch.distributed.checkpoint.state_dict`. Sharded: the boxes that lie on this rank, live,
 * without communication; a checkpointer saves them and loads into them, at any number of ranks. Full: whole tensors in
 * host memory, gathered one after the other.
 *
 * @module
 */
import type { StateTensor } from "../contracts/checkpointer.ts";
import type { DType, HostArray } from "../contracts/dtype.ts";
import { CheckpointError } from "../contracts/errors.ts";
import type { Parameter } from "../nn/parameter.ts";
import { numelOf, type Shape, sameShape, showShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { boxOf, sendBoxes, writeWhole } from "./parameter-boxes.ts";
import { broadcastValue, type RankGroups } from "./rank-groups.ts";

/** A tensor in host memory, row-major. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: HostArray;
}

/** How a state dict is taken. */
export interface GetStateDictOptions {
  /** Whole tensors, on every rank. Collective. Default false. */
  readonly fullStateDict?: boolean;
  /** With `fullStateDict`: on the first rank alone; the others get an empty dict. Default false. */
  readonly cpuOffload?: boolean;
}

/** How a state dict is loaded. */
export interface SetStateDictOptions {
  /** The dict has whole tensors, and each rank takes its part. Default false. */
  readonly fullStateDict?: boolean;
  /** With `fullStateDict`: the first rank alone has the dict, and sends each rank its part. Collective. Default false. */
  readonly broadcastFromRank0?: boolean;
  /** Whether missing and unknown names are errors. Default true. */
  readonly strict?: boolean;
}

/** Names that did not fit. */
export interface IncompatibleKeys {
  /** Of the model, and not in the dict. */
  readonly missingKeys: readonly string[];
  /** In the dict, and not of the model. */
  readonly unexpectedKeys: readonly string[];
}

/** A tensor that takes values: a parameter's, or one that an optimizer keeps of it. */
export interface LoadTarget {
  readonly name: string;
  readonly parameter: Parameter;
  /** Shaped like the parameter's `local`. */
  readonly values: Tensor;
}

/** What is found in a dict, and what is not; found out by the first rank alone when it alone has the dict. */
interface Fit extends IncompatibleKeys {
  readonly problems: readonly string[];
}

/** Whole tensors, wherever they are needed. */
export interface FullLoad {
  readonly what: string;
  readonly targets: readonly LoadTarget[];
  /** Names that a dict may have beside those of targets: tied parameters' other names. */
  readonly aliases: ReadonlySet<string>;
  readonly names: readonly string[];
  find(name: string): HostTensor | undefined;
  readonly groups: RankGroups | undefined;
}

/**
 * Fills targets from whole tensors. Nothing is written unless all fit.
 *
 * @throws CheckpointError, on every rank, that lists what does not.
 */
export async function loadFull(load: FullLoad, options: SetStateDictOptions): Promise<IncompatibleKeys> {
  const { targets, groups, find } = load;
  const sent = options.broadcastFromRank0 === true;
  const own = fitOf(load, options.strict ?? true);
  const fit = sent ? await broadcastValue(groups, own) : own;
  if (fit.problems.length > 0) {
    throw new CheckpointError(`Loading ${load.what} failed: ${fit.problems.join("; ")}`);
  }
  const missing = new Set(fit.missingKeys);
  for (const { name, parameter, values } of targets) {
    if (missing.has(name)) continue;
    if (!sent) writeWhole(parameter, values, find(name)!.data);
    else {
      await sendBoxes(parameter, values, groups, async (box) =>
        boxOf(parameter.shape, find(name)!.data, box),
      );
    }
  }
  return { missingKeys: fit.missingKeys, unexpectedKeys: fit.unexpectedKeys };
}

function fitOf({ targets, names, aliases, find }: FullLoad, strict: boolean): Fit {
  const wanted = new Set(targets.map(({ name }) => name));
  const unexpectedKeys = names.filter((name) => !wanted.has(name) && !aliases.has(name));
  const missingKeys: string[] = [];
  const problems: string[] = [];
  for (const { name, parameter, values } of targets) {
    const given = find(name);
    if (given === undefined) missingKeys.push(name);
    else if (!sameShape(given.shape, parameter.shape) || given.dtype !== values.dtype) {
      problems.push(
        `"${name}" is ${given.dtype} ${showShape(given.shape)}, wanted is ${values.dtype} ${showShape(parameter.shape)}`,
      );
    } else if (given.data.length !== numelOf(given.shape)) {
      problems.push(`"${name}" of shape ${showShape(given.shape)} has ${given.data.length} elements`);
    }
  }
  if (strict) {
    for (const name of missingKeys) problems.push(`"${name}" is missing`);
    for (const name of unexpectedKeys) problems.push(`"${name}" is unknown`);
  }
  return { missingKeys, unexpectedKeys, problems };
}

/** Copies boxes to equal boxes. @throws CheckpointError when they are cut in another way. */
export async function loadSharded(what: string, target: StateTensor, source: StateTensor): Promise<void> {
  const boxes = ({ dtype, shape, pieces }: StateTensor): string =>
    JSON.stringify([dtype, shape, pieces.map(({ offsets, sizes }) => [offsets, sizes])]);
  if (boxes(target) !== boxes(source)) {
    throw new CheckpointError(
      `Loading ${what} failed: "${target.name}" is cut in another way than the model, load it by a checkpointer, which recuts`,
    );
  }
  for (const [i, piece] of target.pieces.entries()) {
    const from = source.pieces[i]!;
    if (from !== piece) piece.write(await from.read());
  }
}

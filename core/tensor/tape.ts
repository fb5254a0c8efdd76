/**
 * The autograd tape: nodes that remember how a result was made, and the walk back over them.
 *
 * Follows PyTorch's engine in what counts: nodes run in reverse order of creation, a gradient that arrives on several
 * ways is summed before it goes on, leaves collect into `.grad`. Two things differ on purpose. The walk is
 * asynchronous, so that a sharded unit can gather its parameters before its part of the tape runs. And everything that
 * the tape holds is freed by the walk itself, node by node.
 *
 * @module
 */
import { ShapeError, StateError } from "../contracts/errors.ts";
import { sameShape, showShape } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

/** A stretch of the forward pass whose backward needs preparation (a unit gathers its parameters). */
export interface GradRegion {
  /** Called when the walk comes to a node of this region after nodes of another. */
  enterBackward(): Promise<void>;
  /** Called when the last node of this region that the walk reaches is done, and so are the gradients it leads to. */
  leaveBackward(): Promise<void>;
}

/** Who wants to know how a walk goes (the sharding engine). */
export interface BackwardListener {
  /** A walk begins. */
  backwardBegin?(): void;
  /** The walk is over, all leaves have their gradients. */
  backwardEnd(): Promise<void>;
  /** The walk failed; state must return to idle. */
  backwardFailed(): void;
}

/**
 * Gradients of a node's inputs from the gradient of its output. Returns one entry per input, `undefined` where none is
 * needed. Returned tensors pass to the tape; the gradient itself (or `gradient.alias()`, when it is returned twice) may
 * be among them. It must not write to `gradient` unless `gradient.exclusive`, nor to what it saved unless this is the
 * `last` walk over the node, the saved tensor is exclusive and no leaf.
 */
export type BackwardFunction = (
  gradient: Tensor,
  saved: readonly (Tensor | undefined)[],
  needs: readonly boolean[],
  last: boolean,
) => readonly (Tensor | undefined)[] | Promise<readonly (Tensor | undefined)[]>;

/** One recorded operation. */
export interface GradNode {
  /** Order of creation on its device. */
  readonly id: number;
  readonly op: string;
  /** For each input: the node that made it, a leaf that wants a gradient, or nothing. */
  readonly inputs: readonly (GradNode | Tensor | undefined)[];
  readonly shape: readonly number[];
  readonly saved: readonly (Tensor | undefined)[];
  readonly backward: BackwardFunction;
  readonly region: GradRegion | undefined;
  /** Its backward ran, or can never run; what it saved is gone. */
  done: boolean;
  /** Tensor handles and later nodes that lead here. At zero no walk can reach it any more. */
  holders: number;
}

/** Options of `backward`. */
export interface BackwardOptions {
  /** Gradient of the root; ones by default, which needs a root of one element. */
  readonly gradient?: Tensor;
  /** Keep the tape for another walk. */
  readonly retainGraph?: boolean;
  /** Part of a walk that is under way (what it recomputed): listeners hear of that one only. */
  readonly nested?: boolean;
}

/** Whether an edge of the tape leads to a node, not a leaf. */
export function isNode(edge: GradNode | Tensor): edge is GradNode {
  return "backward" in edge && "saved" in edge;
}

/** Frees what a node saved. */
function releaseNode(node: GradNode): void {
  if (node.done) return;
  node.done = true;
  for (const tensor of node.saved) tensor?.releaseSaved();
}

/** Takes one holder from a node; frees it, and what only it leads to, when that was the last. */
export function dropNode(node: GradNode): void {
  const dropped = [node];
  for (let next = dropped.pop(); next !== undefined; next = dropped.pop()) {
    if (--next.holders > 0) continue;
    releaseNode(next);
    for (const edge of next.inputs) if (edge !== undefined && isNode(edge)) dropped.push(edge);
  }
}

/** All nodes reachable from `root`, newest first. */
function collect(root: GradNode): GradNode[] {
  const seen = new Set<GradNode>([root]);
  const stack = [root];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    for (const edge of node.inputs) {
      if (edge === undefined || !isNode(edge) || seen.has(edge)) continue;
      seen.add(edge);
      stack.push(edge);
    }
  }
  return [...seen].sort((a, b) => b.id - a.id);
}

/** `a + b`, in place in whichever nobody else holds. Takes both over. */
export function addGradients(a: Tensor, b: Tensor): Tensor {
  const [target, other] = a.exclusive ? [a, b] : [b, a];
  const kernels = a.device.backend.kernels;
  const strided = (t: Tensor) => ({ span: t.span, strides: [1] });
  if (target.exclusive) {
    kernels.binary("add", strided(target), strided(other), target.span, [target.numel]);
    other.dispose();
    return target;
  }
  const out = a.device.allocate(a.shape, a.dtype);
  kernels.binary("add", strided(a), strided(b), out.span, [a.numel]);
  a.dispose();
  b.dispose();
  return out;
}

function seedGradient(root: Tensor, options: BackwardOptions): Tensor {
  if (options.gradient !== undefined) {
    const { gradient } = options;
    if (!sameShape(gradient.shape, root.shape) || gradient.dtype !== root.dtype) {
      throw new ShapeError(
        `backward() failed: gradient ${gradient.dtype} ${showShape(gradient.shape)} for a tensor ${root.dtype} ${showShape(root.shape)}, allowed are equal shapes and dtypes`,
      );
    }
    return gradient.alias();
  }
  if (root.numel !== 1) {
    throw new ShapeError(
      `backward() failed: a tensor of shape ${showShape(root.shape)} has more than one element, pass its gradient`,
    );
  }
  const ones = root.device.allocate(root.shape, root.dtype);
  root.device.backend.kernels.fill(ones.span, 1);
  return ones;
}

/**
 * Walks the tape back from `root` and adds gradients to the leaves.
 *
 * @throws StateError when `root` needs no gradient or its tape was walked already.
 */
export async function runBackward(root: Tensor, options: BackwardOptions): Promise<void> {
  const start = root.gradNode;
  if (start === undefined) {
    throw new StateError(
      "backward() failed: the tensor does not depend on anything that requires a gradient",
    );
  }
  const nodes = collect(start);
  const spent = nodes.find((node) => node.done);
  if (spent !== undefined) {
    throw new StateError(
      `backward() failed: the tape behind "${spent.op}" was walked already, pass retainGraph: true to the first backward() to walk it twice`,
    );
  }
  const device = root.device;
  const listeners = options.nested === true ? [] : [...device.backwardListeners];
  const pending = new Map<GradNode, Tensor>([[start, seedGradient(root, options)]]);
  try {
    for (const listener of listeners) listener.backwardBegin?.();
    const left = new Map<GradRegion | undefined, number>();
    for (const node of nodes) left.set(node.region, (left.get(node.region) ?? 0) + 1);
    let region: GradRegion | undefined;
    for (const node of nodes) {
      const gradient = pending.get(node);
      pending.delete(node);
      const gradients = gradient === undefined ? [] : await visit(node, gradient);
      if (options.retainGraph !== true) releaseNode(node);
      for (let i = 0; i < node.inputs.length; i++) {
        const edge = node.inputs[i];
        const contribution = gradients[i];
        if (edge === undefined) contribution?.dispose();
        else if (isNode(edge)) {
          const earlier = pending.get(edge);
          if (contribution !== undefined) {
            pending.set(edge, earlier === undefined ? contribution : addGradients(earlier, contribution));
          }
        } else if (contribution !== undefined) edge.accumulateGrad(contribution);
      }
      const remaining = left.get(node.region)! - 1;
      left.set(node.region, remaining);
      if (remaining === 0) await node.region?.leaveBackward();
    }
    for (const listener of listeners) await listener.backwardEnd();

    async function visit(node: GradNode, gradient: Tensor): Promise<readonly (Tensor | undefined)[]> {
      if (node.region !== region) {
        region = node.region;
        await region?.enterBackward();
      }
      const needs = node.inputs.map((edge) => edge !== undefined);
      let result: readonly (Tensor | undefined)[] = [];
      try {
        result = await node.backward(gradient, node.saved, needs, options.retainGraph !== true);
      } finally {
        if (!result.includes(gradient)) gradient.dispose();
      }
      return result;
    }
  } catch (error) {
    for (const tensor of pending.values()) if (tensor.owned) tensor.dispose();
    for (const node of nodes) releaseNode(node);
    for (const listener of listeners) listener.backwardFailed();
    throw error;
  }
  device.releaseFinished(root);
}

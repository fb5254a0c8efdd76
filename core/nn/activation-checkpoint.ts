/**
 * Activation checkpointing: what a module computes between its inputs and its outputs is not kept for the backward pass
 * but computed again in it (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016), as PyTorch's
 * `checkpoint` with `use_reentrant=False`.
 *
 * On the tape stands one node for the whole module, which saved its inputs. Its backward runs the module once more, with
 * the random streams where they were, so that dropout drops the same elements, and walks what that recorded.
 *
 * @module
 */
import { DTYPES } from "../contracts/dtype.ts";
import { StateError } from "../contracts/errors.ts";
import type { Device } from "../tensor/device.ts";
import { mapTensors, tensorsOf } from "../tensor/nested-tensors.ts";
import { runBackward } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { AnyModule } from "./module.ts";
import { Parameter } from "./parameter.ts";

type Compute = (args: readonly unknown[]) => Promise<unknown>;

const checkpointed = new WeakSet<AnyModule>();

/**
 * Makes every later call of `module` forget what it computed and compute it again in the backward pass. Tensors may lie
 * in arrays and plain objects of its arguments and of its result. Before or after sharding, with the same effect.
 *
 * @returns the module.
 * @throws StateError when that was done already.
 */
export function checkpoint<M extends AnyModule>(module: M): M {
  if (checkpointed.has(module)) {
    throw new StateError(`checkpoint() failed: this ${module.constructor.name} is checkpointed already`);
  }
  checkpointed.add(module);
  module.wrapCall((args, next) => callForgetting(module, args, next), "inside");
  return module;
}

async function callForgetting(
  module: AnyModule,
  args: readonly unknown[],
  compute: Compute,
): Promise<unknown> {
  const given = tensorsOf(args);
  const leaves = module.parameters().filter((parameter) => parameter.requiresGrad);
  const device = (given.find((tensor) => tensor.hasDevice) ?? leaves[0])?.device;
  const wanted = leaves.length > 0 || given.some((tensor) => tensor.requiresGrad);
  if (device === undefined || !device.gradEnabled || !wanted) return await compute(args);

  const streams = device.streamPosition;
  const result = await device.noGrad(() => compute(args));
  /** Gradients of the outputs that the backward pass came to, by their place. */
  const arrived: (Tensor | undefined)[] = [];
  const needs = given.map((tensor) => tensor.requiresGrad);
  // A tensor without elements: the nodes of all outputs lead to it, and so its own runs after them.
  const gate = device.record(device.result([0], "float32"), {
    op: "checkpoint",
    // Parameters get their gradients from the walk within; here they only say that there are some to get.
    inputs: [...given, ...leaves],
    saved: given,
    backward: async (_, saved) => {
      const gradients = arrived.splice(0);
      const inputs = saved.map((tensor, i) => leafOf(tensor!, needs[i]!));
      try {
        const again = (): Promise<void> => recompute(device, args, inputs, compute, gradients);
        await device.scope(() => replayed(device, streams, again));
        return inputs.map(takeGradient);
      } finally {
        for (const input of inputs) input.dispose();
        for (const gradient of gradients) gradient?.dispose();
      }
    },
  });
  const outputs = new Map<Tensor, Tensor>();
  return mapTensors(result, (tensor) => {
    if (!DTYPES[tensor.dtype].floating) return tensor;
    const known = outputs.get(tensor);
    if (known !== undefined) return known;
    const place = outputs.size;
    const fresh = tensor.gradNode === undefined && !given.includes(tensor) && !(tensor instanceof Parameter);
    const output = device.record(fresh ? tensor : device.adopt(tensor.alias()), {
      op: "checkpoint output",
      inputs: [gate],
      backward: (gradient) => {
        arrived[place] = gradient.alias();
        return [device.allocate([0], "float32")];
      },
    });
    outputs.set(tensor, output);
    return output;
  });
}

/** Runs the module again, recorded, and walks back from its outputs. */
async function recompute(
  device: Device,
  args: readonly unknown[],
  inputs: readonly Tensor[],
  compute: Compute,
  gradients: (Tensor | undefined)[],
): Promise<void> {
  let next = 0;
  const result = await compute(mapTensors(args, () => inputs[next++]!) as readonly unknown[]);
  const outputs = [...new Set(tensorsOf(result))].filter(({ dtype }) => DTYPES[dtype].floating);
  const places = [...outputs.keys()].filter((i) => gradients[i] !== undefined && outputs[i]!.requiresGrad);
  if (places.length === 0) return;
  const join = device.record(device.result([0], "float32"), {
    op: "checkpoint join",
    inputs: places.map((i) => outputs[i]!),
    backward: () =>
      places.map((i) => {
        const gradient = gradients[i];
        gradients[i] = undefined;
        return gradient;
      }),
  });
  using start = device.allocate([0], "float32");
  await runBackward(join, { gradient: start, nested: true });
}

/** Runs `body` as the forward pass was run: recording, with its random streams, and outside of any region. */
async function replayed(device: Device, streams: number, body: () => Promise<void>): Promise<void> {
  const { region, gradEnabled, streamPosition } = device;
  // The region of the node that asks is prepared already, and not left before that node is done.
  device.region = undefined;
  device.gradEnabled = true;
  device.streamPosition = streams;
  try {
    await body();
  } finally {
    device.region = region;
    device.gradEnabled = gradEnabled;
    device.streamPosition = streamPosition;
  }
}

/** The elements as the start of a tape of their own. */
function leafOf(tensor: Tensor, requiresGrad: boolean): Tensor {
  const leaf = tensor.alias();
  leaf.requiresGrad = requiresGrad;
  return leaf;
}

function takeGradient(leaf: Tensor): Tensor | undefined {
  const { grad } = leaf;
  leaf.grad = undefined;
  if (grad !== undefined) grad.device.backend.relabel(grad.storage.buffer, "activation");
  return grad;
}

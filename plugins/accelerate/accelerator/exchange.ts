/**
 * What ranks tell each other beside gradients: tensors and numbers, alone or inside arrays and plain objects, and values
 * that the main process alone finds out.
 *
 * @module
 */
import type { Collective } from "../../../core/contracts/collective.ts";
import { newHostArray } from "../../../core/contracts/dtype.ts";
import { CheckpointError, ConfigError } from "../../../core/contracts/errors.ts";
import { allReduce } from "../../../core/engine/all-reduce.ts";
import { broadcastValue } from "../../../core/engine/rank-groups.ts";
import { Tensor } from "../../../core/tensor/tensor.ts";

/** How one leaf of a value is exchanged. */
export interface LeafExchange {
  tensor(tensor: Tensor): Promise<Tensor>;
  /** Absent where numbers are not exchanged. */
  number?(value: number): Promise<number>;
}

/** A value with every leaf replaced, one after the other: ranks must come to them in one order. @throws ConfigError for other leaves. */
export async function exchanged<T>(value: T, call: string, leaf: LeafExchange): Promise<T> {
  return (await exchange(value, call, leaf)) as T;
}

async function exchange(value: unknown, call: string, leaf: LeafExchange): Promise<unknown> {
  if (value instanceof Tensor) return await leaf.tensor(value);
  if (typeof value === "number" && leaf.number !== undefined) return await leaf.number(value);
  if (Array.isArray(value)) {
    const items: unknown[] = [];
    for (const item of value) items.push(await exchange(item, call, leaf));
    return items;
  }
  if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    const members: Record<string, unknown> = {};
    for (const [key, member] of Object.entries(value)) members[key] = await exchange(member, call, leaf);
    return members;
  }
  const allowed = leaf.number === undefined ? "tensors" : "tensors, numbers";
  throw new ConfigError(
    `${call} failed: given ${value === null ? "null" : typeof value}, allowed are ${allowed}, and arrays and plain objects of them`,
  );
}

/** Every rank's tensor [rows, ...] as one [ranks * rows, ...], in rank order; a scalar as [ranks]. One shape on all ranks. */
export async function gatherTensor(tensor: Tensor, world: Collective): Promise<Tensor> {
  const { device, dtype } = tensor;
  const [rows = 1, ...rest] = tensor.shape;
  const all = newHostArray(dtype, tensor.numel * world.size);
  await world.allGather(all, await tensor.data()).wait();
  const out = device.result([rows * world.size, ...rest], dtype);
  device.backend.write(out.span, all);
  return out;
}

/** The sum, or mean, over ranks. */
export async function reduceTensor(
  tensor: Tensor,
  world: Collective,
  op: "sum" | "avg",
  scale: number,
): Promise<Tensor> {
  const { device } = tensor;
  const out = device.adopt(device.copyOf(tensor));
  await allReduce(world, out, op).wait();
  if (scale !== 1) device.backend.kernels.affine(out.span, out.span, scale, 0);
  return out;
}

/** A rank's tensor, on all; of one shape on all. */
export async function broadcastTensor(tensor: Tensor, world: Collective, from: number): Promise<Tensor> {
  const { device, dtype, shape } = tensor;
  const data = await tensor.data();
  await world.broadcast(data, from).wait();
  const out = device.result(shape, dtype);
  device.backend.write(out.span, data);
  return out;
}

/** What a task on the main process came to. */
type Outcome<T> = { readonly value: T } | { readonly problem: string; readonly isConfig: boolean };

/**
 * Runs `task` on the main process. Every rank gets its JSON value. Collective.
 *
 * @throws ConfigError when the task did, and CheckpointError for any other failure, on every rank.
 */
export async function onMain<T>(world: Collective, task: () => Promise<T>): Promise<T> {
  // What the others give counts nothing.
  const own: Outcome<T> = world.rank === 0 ? await outcomeOf(task) : { problem: "", isConfig: false };
  const told = await broadcastValue({ group: world }, own);
  if ("value" in told) return told.value;
  throw told.isConfig ? new ConfigError(told.problem) : new CheckpointError(told.problem);
}

async function outcomeOf<T>(task: () => Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await task() };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    return { problem, isConfig: error instanceof ConfigError };
  }
}

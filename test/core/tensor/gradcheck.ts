/**
 * Gradient check: analytic gradients against central finite differences, in float64 on the CPU backend.
 *
 * Beside the numbers it checks what every operation owes: gradients do not depend on which other inputs want one, a tape
 * that is kept can be walked twice, the caller's gradient is not written to, and no byte is left behind.
 *
 * @module
 */
import { expect } from "bun:test";
import fc from "fast-check";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { Device } from "../../../core/tensor/device.ts";
import { numelOf, type Shape } from "../../../core/tensor/shape.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";

/** A device of its own: the reference kernels. */
export async function testDevice(seed = 1): Promise<Device> {
  return new Device(await cpuBackend.create({ settings: { matmul: "plain", kernels: "plain" } }), { seed });
}

/** A tensor's elements as numbers. */
export async function valuesOf(tensor: Tensor): Promise<number[]> {
  return Array.from(await tensor.data(), Number);
}

/** Bytes in use on a device. */
export function bytesOn(device: Device): number {
  return device.backend.memory.report().currentTotal;
}

/** A float64 leaf. */
export function leaf(device: Device, shape: Shape, values: readonly number[]): Tensor {
  return device.tensor(Float64Array.from(values), { shape, requiresGrad: true });
}

/** Values from 0.3 to 2.3 in size and of both signs: clear of the kinks at 0, where differences mean nothing. */
export function clearOfZero(index: number): number {
  const size = 0.3 + 2 * fraction(index * 0.6180339887 + 0.1);
  return fraction(index * 0.7548776662) < 0.5 ? size : -size;
}

/** Positive values from 0.3 to 2.3. */
export function positive(index: number): number {
  return Math.abs(clearOfZero(index));
}

/** Values that differ from each other by far more than a finite difference. */
export function distinct(index: number): number {
  return ((index * 7919) % 1009) * 0.01 - 3;
}

function fraction(x: number): number {
  return x - Math.floor(x);
}

/** An input of a gradient check. */
export interface CheckInput {
  readonly shape: Shape;
  /** Element by index; `clearOfZero` by default. */
  readonly value?: (index: number) => number;
}

const EPSILON = 1e-5;
const TOLERANCE = 2e-7;

type Operation = (...inputs: Tensor[]) => Tensor | Promise<Tensor>;

/** Fails unless the gradients of `operation` with respect to every input are right. */
export async function gradcheck(
  device: Device,
  operation: Operation,
  inputs: readonly CheckInput[],
): Promise<void> {
  const before = bytesOn(device);
  const stream = device.streamPosition;
  const values = inputs.map(({ shape, value = clearOfZero }, i) =>
    Array.from({ length: numelOf(shape) }, (_, j) => value(j + 131 * i)),
  );

  /** Runs the operation on leaves of these values; whoever draws random numbers draws the same again. */
  const run = async <T>(
    wants: (input: number) => boolean,
    at: readonly (readonly number[])[],
    use: (out: Tensor, leaves: readonly Tensor[]) => Promise<T>,
  ): Promise<T> => {
    device.streamPosition = stream;
    const leaves = at.map((flat, i) => {
      const tensor = leaf(device, inputs[i]!.shape, flat);
      tensor.requiresGrad = wants(i);
      return tensor;
    });
    const result = await device.scope(async () => use(await operation(...leaves), leaves));
    for (const tensor of leaves) tensor.dispose();
    return result;
  };

  const analytic = (wants: (input: number) => boolean, walks: number) =>
    run(wants, values, async (out, leaves) => {
      using gradient = device
        .tensor(
          Float64Array.from({ length: out.numel }, (_, i) => clearOfZero(i + 17)),
          { shape: out.shape },
        )
        .keep();
      for (let walk = 1; walk <= walks; walk++) await out.backward({ gradient, retainGraph: walk < walks });
      expect(await valuesOf(gradient)).toEqual(
        Array.from({ length: out.numel }, (_, i) => clearOfZero(i + 17)),
      );
      return await Promise.all(leaves.map((tensor) => tensor.grad && valuesOf(tensor.grad)));
    });

  const weighted = async (at: readonly (readonly number[])[]): Promise<number> =>
    await run(
      () => false,
      at,
      async (out) => (await valuesOf(out)).reduce((sum, y, i) => sum + y * clearOfZero(i + 17), 0),
    );

  const all = await analytic(() => true, 1);
  for (const [i, gradient] of all.entries()) {
    expect(gradient?.length).toBe(values[i]!.length);
    for (const [j, found] of gradient!.entries()) {
      const moved = (by: number) => values.map((flat, k) => (k === i ? flat.with(j, flat[j]! + by) : flat));
      const slope = ((await weighted(moved(EPSILON))) - (await weighted(moved(-EPSILON)))) / (2 * EPSILON);
      const gap = Math.abs(found - slope) / (1 + Math.abs(slope));
      if (!(gap <= TOLERANCE)) {
        throw new Error(`gradient of input ${i} at ${j}: ${found} by the tape, ${slope} by differences`);
      }
    }
  }

  for (const i of inputs.keys()) {
    const alone = await analytic((input) => input === i, 1);
    expect(alone).toEqual(all.map((gradient, k) => (k === i ? gradient : undefined)));
  }
  const doubled = await analytic(() => true, 2);
  for (const [i, gradient] of doubled.entries()) {
    // Sums of several contributions round in another order.
    for (const [j, x] of gradient!.entries()) expect(x).toBeCloseTo(2 * all[i]![j]!, 12);
  }
  expect(bytesOn(device)).toBe(before);
}

/** Shapes of up to three dims of extents 0 to 3. */
export const shapes: fc.Arbitrary<number[]> = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 });

/** A shape and two that broadcast to it. */
export const broadcasts: fc.Arbitrary<{ whole: number[]; a: number[]; b: number[] }> = shapes.chain((whole) =>
  fc
    .record({
      ones: fc.array(fc.constantFrom("none", "a", "b"), { minLength: whole.length, maxLength: whole.length }),
      cut: fc.integer({ min: 0, max: whole.length }),
      which: fc.boolean(),
    })
    .map(({ ones, cut, which }) => {
      const full = whole.map((extent, d) => (d < cut || ones[d] !== (which ? "b" : "a") ? extent : 1));
      const short = whole.map((extent, d) => (ones[d] === (which ? "a" : "b") ? 1 : extent)).slice(cut);
      return which ? { whole, a: short, b: full } : { whole, a: full, b: short };
    }),
);

/**
 * Samples to a batch of tensors, as `default_collate` of torch/utils/data.
 *
 * @module
 */
import type { HostArray } from "../../../core/contracts/dtype.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { Device, Values } from "../../../core/tensor/device.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";

/** What the default collation makes of samples of a type. */
export type Collated<T> = T extends number | HostArray | readonly Values[]
  ? Tensor
  : T extends string | boolean | bigint | null | undefined
    ? T[]
    : T extends object
      ? { -readonly [K in keyof T]: Collated<T[K]> }
      : never;

/** Makes a batch of samples, on a device. Tensors that it makes and does not return are freed. */
export type Collate<T, B> = (samples: readonly T[], device: Device) => B | Promise<B>;

/**
 * A batch of samples of one form. Numbers and rows of numbers become float32 tensors with one dim more, in front; typed
 * arrays, tensors of their own type; objects and tuples are collated member by member; anything else stays a list.
 *
 * @throws ShapeError when samples differ in their form.
 */
export function defaultCollate<T>(samples: readonly T[], device: Device): Collated<T> {
  return collate(samples, device, "sample") as Collated<T>;
}

function collate(samples: readonly unknown[], device: Device, what: string): unknown {
  const [first] = samples;
  if (ArrayBuffer.isView(first)) return stack(samples as readonly HostArray[], device, what);
  if (isNumeric(first)) return device.tensor(samples as readonly Values[]);
  if (typeof first !== "object" || first === null) return [...samples];
  const keys = Object.keys(first);
  const odd = samples.find((sample) => !sameKeys(sample, keys));
  if (odd !== undefined) {
    throw new ShapeError(
      `Collating a batch failed: ${what} has ${keys.join(", ")} and then ${describeKeys(odd)}, allowed are samples of one form, or a collate function`,
    );
  }
  const members = keys.map((key) => {
    const column = samples.map((sample) => (sample as Readonly<Record<string, unknown>>)[key]);
    return [key, collate(column, device, `${what}.${key}`)] as const;
  });
  return Array.isArray(first) ? members.map(([, value]) => value) : Object.fromEntries(members);
}

/** Rows of one length as a tensor [rows, length]. */
function stack(rows: readonly HostArray[], device: Device, what: string): Tensor {
  const [first] = rows;
  const { length } = first!;
  const odd = rows.find((row) => row.constructor !== first!.constructor || row.length !== length);
  if (odd !== undefined) {
    throw new ShapeError(
      `Collating a batch failed: ${what} is a ${first!.constructor.name} of ${length} and then a ${odd.constructor.name} of ${odd.length}, allowed are samples of one form, or a collate function`,
    );
  }
  const all = new (first!.constructor as new (length: number) => HostArray)(rows.length * length);
  for (const [i, row] of rows.entries()) all.set(row as never, i * length);
  return device.tensor(all, { shape: [rows.length, length] });
}

/** A number, or arrays of nothing but numbers. */
function isNumeric(value: unknown): boolean {
  return typeof value === "number" || (Array.isArray(value) && value.length > 0 && value.every(isNumeric));
}

function sameKeys(sample: unknown, keys: readonly string[]): boolean {
  if (typeof sample !== "object" || sample === null) return false;
  const own = Object.keys(sample);
  return own.length === keys.length && keys.every((key) => Object.hasOwn(sample, key));
}

function describeKeys(sample: unknown): string {
  return typeof sample === "object" && sample !== null ? Object.keys(sample).join(", ") : typeof sample;
}

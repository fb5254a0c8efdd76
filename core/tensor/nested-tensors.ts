/**
 * Tensors inside values: alone, or in arrays and plain objects, however deep.
 *
 * @module
 */
import { Tensor } from "./tensor.ts";

/** The value with every tensor replaced by what `change` gives for it. */
export function mapTensors(value: unknown, change: (tensor: Tensor) => Tensor): unknown {
  if (value instanceof Tensor) return change(value);
  if (Array.isArray(value)) return value.map((item) => mapTensors(item, change));
  if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapTensors(item, change)]));
  }
  return value;
}

/** The tensors of a value, in order, as often as they occur. */
export function tensorsOf(value: unknown): Tensor[] {
  const tensors: Tensor[] = [];
  mapTensors(value, (tensor) => {
    tensors.push(tensor);
    return tensor;
  });
  return tensors;
}

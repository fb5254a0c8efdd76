/**
 * Dropout in plain TypeScript: what is kept depends on the key and the element's index alone, so the backward pass is
 * the same call on the gradient.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { RandomKey } from "../../../core/contracts/kernels.ts";
import { randomWords } from "../../../core/tensor/random.ts";
import { floats, type Heap, requireSame } from "./heap.ts";

const CHUNK = 4096;

/** See `CpuKernels.dropout`. @throws ConfigError unless 0 <= p <= 1. */
export function dropout(heap: Heap, x: Span, out: Span, p: number, key: RandomKey, first: number): void {
  if (!(p >= 0 && p <= 1)) throw new ConfigError(`dropout: probability ${p} was given, allowed: 0 to 1`);
  requireSame("dropout", [x, out]);
  const source = floats(heap, "dropout", x);
  const target = floats(heap, "dropout", out);
  const threshold = p * 2 ** 32;
  const scale = p === 1 ? 0 : 1 / (1 - p);
  const words = new Uint32Array(Math.min(CHUNK, target.length));
  for (let begin = 0; begin < target.length; begin += CHUNK) {
    const chunk = words.subarray(0, Math.min(CHUNK, target.length - begin));
    randomWords(key, first + begin, chunk);
    for (let i = 0; i < chunk.length; i++) {
      target[begin + i] = chunk[i]! >= threshold ? source[begin + i]! * scale : 0;
    }
  }
}

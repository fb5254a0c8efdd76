/**
 * Dropout: what is kept depends on the key and the element's index alone, so the backward pass is the same call.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { RandomKey } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { floatType, inPieces, leadOf, part, requireSame } from "../spans.ts";
import { DROPOUT_WORKGROUP, dropoutSource } from "../wgsl/dropout.ts";
import { fill } from "./fill.ts";

/** See `Kernels.dropout`. @throws ConfigError unless 0 <= p <= 1. */
export function dropout(gpu: Gpu, x: Span, out: Span, p: number, key: RandomKey): void {
  if (!(p >= 0 && p <= 1)) throw new ConfigError(`dropout: probability ${p} was given, allowed: 0 to 1`);
  requireSame("dropout", [x, out]);
  const type = floatType(gpu, "dropout", x);
  // A word is at least p * 2^32 when it is at least the next integer.
  const threshold = Math.ceil(p * 2 ** 32);
  if (threshold === 2 ** 32) {
    fill(gpu, out, 0);
    return;
  }
  const source = dropoutSource(type, leadOf(x) === 0 && leadOf(out) === 0);
  const params = { threshold, scale: 1 / (1 - p), low: key.low, high: key.high };
  inPieces(gpu, [x, out], x.length, (start, n) => {
    const pieces = [part(x, start, n), part(out, start, n)];
    gpu.dispatch(source, pieces, { ...params, n, first: start / 4 }, Math.ceil(n / 4 / DROPOUT_WORKGROUP));
  });
}

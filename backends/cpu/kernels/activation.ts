/**
 * Matrix products that end with an activation: the product, then the activation of its rows.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { Kernels, MatmulArgs } from "../../../core/contracts/kernels.ts";

/** `Kernels.matmul` with its activation, from a product without and a unary kernel. */
export function activatedMatmul({ matmul, unary }: Pick<Kernels, "matmul" | "unary">): Kernels["matmul"] {
  return (args) => {
    const { activation, preactivation, ...rest } = args;
    if (activation === undefined) return matmul(rest);
    const { out, accumulate } = rest;
    if (accumulate) {
      throw new ShapeError(`cpu matmul: ${activation} was given with accumulate, allowed: one of them`);
    }
    const source = preactivation ?? out.span;
    matmul({ ...rest, out: { ...out, span: source } });
    for (const [begin, length] of runs(rest)) {
      const run = (span: Span): Span => ({ ...span, offset: span.offset + begin, length });
      unary(activation, run(source), run(out.span));
    }
  };
}

/** First element and length of every contiguous part of the result. */
function* runs({ out, batch, m, n }: MatmulArgs): Generator<readonly [number, number]> {
  if (batch * m * n === 0) return;
  const dense = out.rowStride === n || m === 1;
  if (dense && (batch === 1 || out.batchStride === m * n)) {
    yield [0, batch * m * n];
    return;
  }
  for (let b = 0; b < batch; b++) {
    if (dense) yield [b * out.batchStride, m * n];
    else for (let row = 0; row < m; row++) yield [b * out.batchStride + row * out.rowStride, n];
  }
}

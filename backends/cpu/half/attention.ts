/**
 * Attention in 16-bit floats, key head by key head: what its query heads need is widened, scores and sums are float32,
 * and results are rounded once.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { AttentionShape, HeadsOperand, Kernels } from "../../../core/contracts/kernels.ts";
import { requireHeads } from "../kernels/attention.ts";
import {
  anyHalf,
  commonHalf,
  type HalfContext,
  narrow,
  part,
  requireDType,
  widen,
  workspaces,
} from "./context.ts";

/** The kernels; what has no 16-bit operand goes to the float32 ones. */
export function halfAttention(context: HalfContext): Pick<Kernels, "attention" | "attentionBackward"> {
  const { float32 } = context;
  return {
    attention(args) {
      const { shape, query, key, value, out, logSumExp } = args;
      if (!anyHalf(...[query, key, value, out].map(({ span }) => span), logSumExp))
        return float32.attention(args);
      const operands = { query: [query], key: [key, value], queryResults: [out], keyResults: [] };
      inGroups(context, "attention", shape, logSumExp, operands, (group, [q, k, v, o], sums) =>
        float32.attention({ shape: group, query: q!, key: k!, value: v!, out: o!, logSumExp: sums }),
      );
    },
    attentionBackward(args) {
      const { shape, query, key, value, out, logSumExp, gradient, dQuery, dKey, dValue } = args;
      const all = [query, key, value, out, gradient, dQuery, dKey, dValue];
      if (!anyHalf(...all.map(({ span }) => span), logSumExp)) return float32.attentionBackward(args);
      const operands = {
        ...{ query: [query, out, gradient], key: [key, value] },
        ...{ queryResults: [dQuery], keyResults: [dKey, dValue] },
      };
      inGroups(context, "attention backward", shape, logSumExp, operands, (group, parts, sums) => {
        const [q, o, g, k, v, dq, dk, dv] = parts;
        float32.attentionBackward({
          ...{ shape: group, query: q!, key: k!, value: v!, out: o!, gradient: g!, logSumExp: sums },
          ...{ dQuery: dq!, dKey: dk!, dValue: dv! },
        });
      });
    },
  };
}

/** Operands with a row per query or per key. */
interface Operands {
  readonly query: readonly HeadsOperand[];
  readonly key: readonly HeadsOperand[];
  readonly queryResults: readonly HeadsOperand[];
  readonly keyResults: readonly HeadsOperand[];
}

/** Calls `body` for every key head of every batch with the shape and the operands, in the order above, of it alone. */
function inGroups(
  context: HalfContext,
  kernel: string,
  shape: AttentionShape,
  logSumExp: Span,
  operands: Operands,
  body: (shape: AttentionShape, parts: readonly HeadsOperand[], logSumExp: Span) => void,
): void {
  const { query, key, queryResults, keyResults } = operands;
  const [ofQuery, ofKey] = [
    [...query, ...queryResults],
    [...key, ...keyResults],
  ];
  const dtype = commonHalf(
    kernel,
    [...ofQuery, ...ofKey].map(({ span }) => span),
  );
  requireDType(kernel, "float32", [logSumExp]);
  requireHeads(kernel, dtype, shape, logSumExp, ofQuery, ofKey);
  const { batch, heads, keyHeads, queryLength, keyLength, headDim } = shape;
  const shared = keyHeads === 0 ? 0 : heads / keyHeads;
  const group = { ...shape, batch: 1, heads: shared, keyHeads: 1 };
  const side = (list: readonly HeadsOperand[], rows: number, width: number, result: boolean) =>
    list.map((operand) => ({ operand, rows, width, result }));
  const parts = [
    ...side(query, queryLength, shared * headDim, false),
    ...side(key, keyLength, headDim, false),
    ...side(queryResults, queryLength, shared * headDim, true),
    ...side(keyResults, keyLength, headDim, true),
  ];
  const spaces = workspaces(
    context.heap,
    parts.map(({ rows, width }) => rows * width),
  );
  const inner = parts.map(({ width }, i) => ({ span: spaces[i]!, rowStride: width, batchStride: 0 }));
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < keyHeads; head++) {
      const lying = parts.map(({ operand: { span, batchStride, rowStride }, rows, width }) =>
        part(span, b * batchStride + head * width, rows * width === 0 ? 0 : (rows - 1) * rowStride + width),
      );
      for (const [i, { operand, rows, width, result }] of parts.entries()) {
        if (!result) widen(context, lying[i]!, spaces[i]!, rows, width, operand.rowStride);
      }
      const rows = shared * queryLength;
      body(group, inner, part(logSumExp, (b * keyHeads + head) * rows, rows));
      for (const [i, { operand, rows, width, result }] of parts.entries()) {
        if (result) narrow(context, spaces[i]!, lying[i]!, rows, width, operand.rowStride);
      }
    }
  }
}

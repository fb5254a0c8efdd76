/**
 * Scaled dot-product attention (Vaswani et al., 2017), as `torch.nn.functional.scaled_dot_product_attention`, without a
 * matrix of all scores (Dao et al., "FlashAttention", 2022): what the backward pass needs of them is one log-sum-exp a row.
 *
 * Layouts keep the heads inside the rows ([batch, length, heads, dim]), as projections produce them, so that nothing is
 * transposed; a packed projection of query, key and value is read, and its gradient written, in place by strides.
 *
 * @module
 */
import { accumulatorDType } from "../../contracts/dtype.ts";
import { ShapeError } from "../../contracts/errors.ts";
import type { AttentionShape, HeadsOperand } from "../../contracts/kernels.ts";
import { type Shape, showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

/** Options of attention. */
export interface AttentionOptions {
  /** A query sees keys up to its own position only; the last query sits at the last key. Off by default. */
  readonly causal?: boolean;
  /** Factor of the scores; `1 / sqrt(dim)` by default. */
  readonly scale?: number;
}

/** Where one of query, key and value lies: in which input, and how its rows are spaced there. */
interface Place {
  readonly input: number;
  readonly offset: number;
  readonly batchStride: number;
  readonly rowStride: number;
}

/**
 * Attention of `query` [batch, length, heads, dim] to `key` and `value` [batch, keyLength, keyHeads, dim], giving
 * [batch, length, heads, dim]. Fewer key heads than heads are shared by neighbouring query heads (grouped queries).
 *
 * @throws ShapeError when shapes or dtypes do not fit, or a causal query would see no key.
 */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions = {},
): Tensor {
  const [batch, queryLength, heads, headDim] = query.shape;
  const [keyBatch, keyLength, keyHeads, keyDim] = key.shape;
  const inputs = [query, key, value];
  if (
    inputs.some((input) => input.shape.length !== 4 || input.dtype !== query.dtype) ||
    value.shape.some((extent, d) => extent !== key.shape[d]) ||
    keyBatch !== batch ||
    keyDim !== headDim ||
    (heads! > 0 && !(heads! % keyHeads! === 0))
  ) {
    const given = inputs.map((input) => `${input.dtype} ${showShape(input.shape)}`).join(", ");
    throw new ShapeError(
      `scaledDotProductAttention() failed: ${given}, allowed are query [batch, length, heads, dim], key and value [batch, keyLength, keyHeads, dim] of one dtype with heads a multiple of keyHeads`,
    );
  }
  const shape = shapeOf(options, batch!, heads!, keyHeads!, queryLength!, keyLength!, headDim!);
  const places = inputs.map((tensor, input) => {
    const rowStride = tensor.shape[2]! * headDim!;
    return { input, offset: 0, batchStride: tensor.shape[1]! * rowStride, rowStride };
  });
  return attend("scaledDotProductAttention", inputs, places, shape, query.shape);
}

/**
 * Self-attention over a packed projection `qkv` [batch, length, 3 * heads * dim] (all of query, then key, then value in
 * each row, as GPT-2's `c_attn` gives them), giving [batch, length, heads * dim].
 *
 * @throws ShapeError when the last extent is not a multiple of `3 * heads`.
 */
export function packedAttention(qkv: Tensor, heads: number, options: AttentionOptions = {}): Tensor {
  const [batch, length, packed] = qkv.shape;
  const width = packed! / 3;
  const headDim = width / heads;
  if (qkv.shape.length !== 3 || heads < 1 || !Number.isInteger(heads) || !Number.isInteger(headDim)) {
    throw new ShapeError(
      `packedAttention() failed: ${showShape(qkv.shape)} with ${heads} heads, allowed are [batch, length, 3 * heads * dim]`,
    );
  }
  const shape = shapeOf(options, batch!, heads, heads, length!, length!, headDim);
  const places = [0, 1, 2].map((part) => ({
    input: 0,
    offset: part * width,
    batchStride: length! * packed!,
    rowStride: packed!,
  }));
  return attend("packedAttention", [qkv], places, shape, [batch!, length!, width]);
}

function shapeOf(
  options: AttentionOptions,
  batch: number,
  heads: number,
  keyHeads: number,
  queryLength: number,
  keyLength: number,
  headDim: number,
): AttentionShape {
  const causal = options.causal ?? false;
  if (causal && queryLength > keyLength) {
    throw new ShapeError(
      `Causal attention failed: ${queryLength} queries and ${keyLength} keys, the first queries would see no key`,
    );
  }
  const scale = options.scale ?? 1 / Math.sqrt(headDim);
  return { batch, heads, keyHeads, queryLength, keyLength, headDim, scale, causal };
}

/** The span of `tensors[place.input]` from the place on, with its strides. */
function operand(tensors: readonly (Tensor | undefined)[], place: Place): HeadsOperand {
  const { buffer, dtype, offset, length } = tensors[place.input]!.span;
  const skip = Math.min(place.offset, length);
  return {
    span: { buffer, dtype, offset: offset + skip, length: length - skip },
    batchStride: place.batchStride,
    rowStride: place.rowStride,
  };
}

function attend(
  op: string,
  inputs: readonly Tensor[],
  places: readonly Place[],
  shape: AttentionShape,
  outShape: Shape,
): Tensor {
  const { device, dtype } = inputs[0]!;
  const [query, key, value] = [places[0]!, places[1]!, places[2]!];
  const rowStride = shape.heads * shape.headDim;
  const result: Place = { input: 0, offset: 0, batchStride: shape.queryLength * rowStride, rowStride };
  const out = device.result(outShape, dtype);
  const logSumExp = device.allocate([shape.batch, shape.heads, shape.queryLength], accumulatorDType(dtype));
  device.backend.kernels.attention({
    shape,
    query: operand(inputs, query),
    key: operand(inputs, key),
    value: operand(inputs, value),
    out: operand([out], result),
    logSumExp: logSumExp.span,
  });
  const shapes = inputs.map((input) => input.shape);
  device.record(out, {
    op,
    inputs,
    saved: [out, logSumExp, ...inputs],
    backward: (gradient, [y, sums, ...held]) => {
      const gradients = shapes.map((extents) => gradient.device.allocate(extents, gradient.dtype));
      gradient.device.backend.kernels.attentionBackward({
        shape,
        query: operand(held, query),
        key: operand(held, key),
        value: operand(held, value),
        out: operand([y], result),
        logSumExp: sums!.span,
        gradient: operand([gradient], result),
        dQuery: operand(gradients, query),
        dKey: operand(gradients, key),
        dValue: operand(gradients, value),
      });
      return gradients;
    },
  });
  logSumExp.dispose();
  return out;
}

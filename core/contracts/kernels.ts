/**
 * Kernels: what every backend computes. The CPU backend is the reference and has them all in plain TypeScript.
 *
 * Conventions:
 * - A span is contiguous row-major memory; extents are separate numbers. Sizes and strides count elements.
 * - `out` never overlaps an input unless a kernel says "in place allowed" (then it may be exactly one of its inputs).
 * - Every element of `out` is written, unless `accumulate` adds to it.
 * - Floating operands of one call share one dtype. Sums accumulate in at least float32. Statistics (`mean`, `rstd`,
 *   `logSumExp`, `losses` and the loss's per-row `gradient`) are float32 when the operands are 16-bit; `matmul` may write
 *   float32 from 16-bit operands; `normPower` writes float32 for 16-bit operands.
 * - A zero extent is legal: an empty `out` is a no-op, an empty reduction gives the identity (0, or -Infinity for max).
 *
 * @module
 */
import type { Span } from "./backend.ts";

/** Elementwise functions of one argument. `gelu` is the exact erf form, `geluTanh` GPT-2's `gelu_new`. */
export type UnaryOp =
  | "neg"
  | "abs"
  | "exp"
  | "log"
  | "sqrt"
  | "tanh"
  | "sigmoid"
  | "relu"
  | "gelu"
  | "geluTanh"
  | "silu";

/** Elementwise functions of two arguments; comparisons give 1 or 0 in the operands' dtype. */
export type BinaryOp =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "pow"
  | "maximum"
  | "minimum"
  | "equal"
  | "greater"
  | "less";

/** Reductions. `max` propagates NaN. */
export type ReduceOp = "sum" | "max";

/** A matrix operand of `matmul`: element (i, j) of matrix b lies at `offset + b * batchStride + i * rowStride + j` (transposed: i and j swap). */
export interface MatrixOperand {
  readonly span: Span;
  /** Elements between rows as stored. */
  readonly rowStride: number;
  /** Elements between matrices of a batch; 0 broadcasts. */
  readonly batchStride: number;
  /** The stored matrix is the transpose of the one that is multiplied. */
  readonly transposed: boolean;
}

/** What a matrix product may end with. */
export type MatmulActivation = Extract<UnaryOp, "relu" | "gelu" | "geluTanh" | "silu">;

/** `out[b] = activation(alpha * a[b] x b[b] (+ bias) (+ out[b]))`. */
export interface MatmulArgs {
  readonly a: MatrixOperand;
  readonly b: MatrixOperand;
  /** Never transposed. */
  readonly out: MatrixOperand;
  readonly batch: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly alpha?: number;
  /** `n` elements, added to every row. */
  readonly bias?: Span;
  /** Add to what `out` holds. Not together with `activation`. */
  readonly accumulate?: boolean;
  readonly activation?: MatmulActivation;
  /** Gets what the activation is applied to, which its gradient needs; laid out as `out`, in its dtype. */
  readonly preactivation?: Span;
}

/** A strided operand over the iteration space `sizes`; stride 0 broadcasts. */
export interface StridedOperand {
  readonly span: Span;
  readonly strides: readonly number[];
}

/**
 * One box to copy: for every index of `sizes`,
 * `target[targetOffset + index . targetStrides] = source[sourceOffset + index . sourceStrides]`.
 * Offsets are relative to the spans. Boxes of one call do not overlap in the target.
 */
export interface CopyBox {
  readonly sizes: readonly number[];
  readonly sourceOffset: number;
  readonly sourceStrides: readonly number[];
  readonly targetOffset: number;
  readonly targetStrides: readonly number[];
}

/** Query, key, value or output of attention: element (b, t, h, d) at `offset + b*batchStride + t*rowStride + h*headDim + d`. */
export interface HeadsOperand {
  readonly span: Span;
  readonly batchStride: number;
  readonly rowStride: number;
}

/** Extents of scaled dot-product attention. */
export interface AttentionShape {
  readonly batch: number;
  readonly heads: number;
  /** Heads of key and value; query head h uses key head `floor(h * keyHeads / heads)` (grouped-query attention). */
  readonly keyHeads: number;
  readonly queryLength: number;
  /** Query row t sits at key position `keyLength - queryLength + t`. */
  readonly keyLength: number;
  readonly headDim: number;
  readonly scale: number;
  readonly causal: boolean;
}

/** A rotation of `rows` rows of `heads` heads (Su et al., "RoFormer", 2021; halves of a head pair, as in Hugging Face's models). */
export interface RotaryArgs {
  /** [rows, heads, headDim]; `headDim` is even. */
  readonly x: Span;
  readonly out: Span;
  /** Cosine and sine of each row's angles, [length, headDim / 2]; float32 when `x` is 16-bit. Row r takes row `r % length`. */
  readonly cos: Span;
  readonly sin: Span;
  readonly rows: number;
  readonly length: number;
  readonly heads: number;
  readonly headDim: number;
  /** Rotate by the negative angles: undoes it, and is its gradient. */
  readonly inverse: boolean;
}

/** Counter-based random stream: Philox4x32-10 with this key; element i of a tensor is word `i % 4` of counter `i / 4`. */
export interface RandomKey {
  readonly high: number;
  readonly low: number;
}

/** Decoupled-weight-decay Adam over one run of elements, as `torch.optim.AdamW`. All spans have equal length. */
export interface AdamWArgs {
  readonly parameter: Span;
  readonly gradient: Span;
  readonly expAvg: Span;
  readonly expAvgSq: Span;
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** 1 at the first update. */
  readonly step: number;
}

/** Stochastic gradient descent as `torch.optim.SGD`. */
export interface SGDArgs {
  readonly parameter: Span;
  readonly gradient: Span;
  /** Present when `momentum` is not 0. */
  readonly momentumBuffer?: Span;
  readonly lr: number;
  readonly momentum: number;
  readonly dampening: number;
  readonly weightDecay: number;
  readonly nesterov: boolean;
  /** The first update copies the gradient into the momentum buffer. */
  readonly first: boolean;
}

/** The kernels of a backend. */
export interface Kernels {
  fill(out: Span, value: number): void;
  /** Copies boxes from one span to another; `accumulate` adds instead. Spans share a dtype, any dtype unless accumulating. */
  copy(source: Span, target: Span, boxes: readonly CopyBox[], accumulate?: boolean): void;
  /** Converts every element to the target's dtype (round to nearest even; float to int truncates). */
  cast(source: Span, target: Span): void;

  /**
   * Factors that bring largest magnitudes to that of float8_e4m3fn: `out = 448 / max(amax, 1e-12)`, or the power of two
   * that is next below. Spans are float32. In place allowed.
   */
  float8Scale(amax: Span, out: Span, powerOfTwo: boolean): void;
  /**
   * Bytes of float8_e4m3fn: `out[i] = x[i] * scale[floor(i / columns)]`, what is beyond ±448 taken as that, to nearest
   * even; not a number gives 0x7f. `x` and `scale` are float32, `out` is uint8.
   */
  toFloat8(x: Span, scale: Span, out: Span, columns: number): void;
  /** The other way: `out[i] = value(x[i]) / scale[floor(i / columns)]`. */
  fromFloat8(x: Span, scale: Span, out: Span, columns: number): void;

  /** In place allowed. */
  unary(op: UnaryOp, x: Span, out: Span): void;
  /** `out = gradient * op'(x)`, where `y = op(x)` is given too. In place over `gradient` allowed. */
  unaryBackward(op: UnaryOp, x: Span, y: Span, gradient: Span, out: Span): void;
  /** `out = op(gate) * x`. In place over either allowed. */
  gated(op: UnaryOp, gate: Span, x: Span, out: Span): void;
  /** Gradients of gated: `dGate = gradient * x * op'(gate)`, `dX = gradient * op(gate)`; each optional. `dGate` in place over `gate`, `dX` over `x` or `gradient` allowed. */
  gatedBackward(args: {
    op: UnaryOp;
    gate: Span;
    x: Span;
    gradient: Span;
    dGate?: Span | undefined;
    dX?: Span | undefined;
  }): void;
  /** `out = x * scale + shift`. In place allowed. */
  affine(x: Span, out: Span, scale: number, shift: number): void;
  /** `out[i] = op(a[i . a.strides], b[i . b.strides])` over `sizes`, `out` contiguous. In place over a contiguous operand allowed. */
  binary(op: BinaryOp, a: StridedOperand, b: StridedOperand, out: Span, sizes: readonly number[]): void;
  /** `out[i] = condition[i] != 0 ? a[i] : b[i]` over `sizes`. */
  where(
    condition: StridedOperand,
    a: StridedOperand,
    b: StridedOperand,
    out: Span,
    sizes: readonly number[],
  ): void;
  /** Reduces the middle extent of `[outer, extent, inner]` to `[outer, inner]`. */
  reduce(
    op: ReduceOp,
    x: Span,
    out: Span,
    outer: number,
    extent: number,
    inner: number,
    accumulate?: boolean,
  ): void;

  matmul(args: MatmulArgs): void;

  /** Softmax over rows of `columns` elements; `log` gives log-softmax. In place allowed. */
  softmax(x: Span, out: Span, rows: number, columns: number, log: boolean): void;
  /** Gradient of softmax (or log-softmax) from its output `y`. In place over `gradient` allowed. */
  softmaxBackward(y: Span, gradient: Span, out: Span, rows: number, columns: number, log: boolean): void;

  /** Normalises rows; writes `mean` and `rstd` (one per row) for the backward pass. `bias` is optional. */
  layerNorm(args: {
    x: Span;
    weight: Span;
    bias?: Span | undefined;
    out: Span;
    mean: Span;
    rstd: Span;
    rows: number;
    columns: number;
    eps: number;
  }): void;
  /** Gradients of layerNorm. `dWeight` and `dBias` are overwritten; each output is optional. */
  layerNormBackward(args: {
    x: Span;
    weight: Span;
    mean: Span;
    rstd: Span;
    gradient: Span;
    dx?: Span | undefined;
    dWeight?: Span | undefined;
    dBias?: Span | undefined;
    rows: number;
    columns: number;
  }): void;

  /** Scales rows by the reciprocal root of their mean square, `out = x * rstd * weight`; writes `rstd` (one per row) for the backward pass. */
  rmsNorm(args: {
    x: Span;
    weight: Span;
    out: Span;
    rstd: Span;
    rows: number;
    columns: number;
    eps: number;
  }): void;
  /** Gradients of rmsNorm. Both are overwritten; each is optional. `dx` in place over `gradient` allowed. */
  rmsNormBackward(args: {
    x: Span;
    weight: Span;
    rstd: Span;
    gradient: Span;
    dx?: Span | undefined;
    dWeight?: Span | undefined;
    rows: number;
    columns: number;
  }): void;

  /**
   * Rotates pairs of every head by the angles of its row: element d of the first half of a head pairs with element d of
   * the second. In place allowed.
   */
  rotary(args: RotaryArgs): void;

  /** `out[i] = table[indices[i]]` for `rows` indices; indices are int32 or int64. @throws ShapeError when an index is outside the table (where the host can see it). */
  embedding(table: Span, indices: Span, out: Span, rows: number, columns: number): void;
  /** `dTable[indices[i]] += gradient[i]` in index order; `dTable` is overwritten (zero-filled first). */
  embeddingBackward(gradient: Span, indices: Span, dTable: Span, rows: number, columns: number): void;

  /**
   * Cross entropy of `logits` [rows, columns] against int32 or int64 `targets`: per-row `losses` and `logSumExp`.
   * A target of -100 is ignored: loss 0.
   */
  crossEntropy(
    logits: Span,
    targets: Span,
    losses: Span,
    logSumExp: Span,
    rows: number,
    columns: number,
  ): void;
  /** `dLogits = (softmax(logits) - onehot(target)) * gradient[row]`, zero for ignored rows. In place over `logits` allowed. */
  crossEntropyBackward(
    logits: Span,
    targets: Span,
    logSumExp: Span,
    gradient: Span,
    dLogits: Span,
    rows: number,
    columns: number,
  ): void;

  /** Scaled dot-product attention; `logSumExp` is [batch, heads, queryLength]. No matrix of all scores is kept. */
  attention(args: {
    shape: AttentionShape;
    query: HeadsOperand;
    key: HeadsOperand;
    value: HeadsOperand;
    out: HeadsOperand;
    logSumExp: Span;
  }): void;
  /** Gradients of attention; all three are overwritten. */
  attentionBackward(args: {
    shape: AttentionShape;
    query: HeadsOperand;
    key: HeadsOperand;
    value: HeadsOperand;
    out: HeadsOperand;
    logSumExp: Span;
    gradient: HeadsOperand;
    dQuery: HeadsOperand;
    dKey: HeadsOperand;
    dValue: HeadsOperand;
  }): void;

  /** `out[i] = keep(i) ? x[i] / (1 - p) : 0` with `keep(i) = uniform(key, i) >= p`, uniform = word * 2^-32. In place allowed. Its own gradient. */
  dropout(x: Span, out: Span, p: number, key: RandomKey): void;

  /** One number into `out[0]`: sum of |x|^p, or max of |x| for p = Infinity. */
  normPower(x: Span, out: Span, p: number): void;
  adamw(args: AdamWArgs): void;
  sgd(args: SGDArgs): void;
}

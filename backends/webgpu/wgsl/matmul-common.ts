/**
 * What all matrix-product kernels share: their parameters, the order in which workgroups take blocks of the result, and
 * what happens to a finished element.
 *
 * @module
 */

/** WGSL element types of matrices in memory. */
export type Element = "f32" | "f16";

/** How an operand lies in memory. */
export interface OperandLayout {
  /** Neighbours in memory are neighbours in depth (k): a not transposed, b transposed. */
  readonly deep: boolean;
  /** Offset and strides allow vector access. */
  readonly vector: boolean;
}

/** What a kernel is specialised for. */
export interface MatmulVariant {
  readonly a: OperandLayout;
  readonly b: OperandLayout;
  /** Of a and b. */
  readonly element: Element;
  readonly out: Element;
  /** The result's offset, strides and columns allow vector access. */
  readonly outVector: boolean;
  readonly bias: Element | undefined;
  readonly accumulate: boolean;
  /** The depth, or a split's last part of it, does not fill the last staged block. */
  readonly tail: boolean;
}

/** Names of the parameters, in order: 4 bytes each, all u32 but `alpha`. Strides and offsets count elements. */
export const MATMUL_PARAMS: readonly string[] = [
  "m",
  "n",
  "k",
  "batches",
  /** Depth of one split; `k` when it is not split. Splits of a matrix lie `m * n` apart in the result. */
  "chunk",
  "aOffset",
  "aRow",
  "aBatch",
  "bOffset",
  "bRow",
  "bBatch",
  "outOffset",
  "outRow",
  "outBatch",
  "biasOffset",
  "alpha",
];

/** Rows of blocks that workgroups take column by column, so that both operands' blocks stay in cache. */
const GROUP_ROWS = 8;

/**
 * Which block this workgroup computes: `rowBegin`, `columnBegin`, `batch`, the depths `kBegin` to `kEnd`, and `outBase`,
 * the result's first element. Surplus workgroups of a folded dispatch return.
 */
export function prologue(blockM: number, blockN: number): string {
  return `let blocksM = (p.m + ${blockM - 1}u) / ${blockM}u;
  let blocksN = (p.n + ${blockN - 1}u) / ${blockN}u;
  let splits = max((p.k + p.chunk - 1u) / p.chunk, 1u);
  let ticket = group.x + group.y * groups.x;
  let plane = ticket / (blocksM * blocksN);
  if (plane >= p.batches * splits) { return; }
  let inPlane = ticket % (blocksM * blocksN);
  let band = inPlane / (${GROUP_ROWS}u * blocksN);
  let bandRows = min(blocksM - band * ${GROUP_ROWS}u, ${GROUP_ROWS}u);
  let inBand = inPlane % (${GROUP_ROWS}u * blocksN);
  let rowBegin = (band * ${GROUP_ROWS}u + inBand % bandRows) * ${blockM}u;
  let columnBegin = (inBand / bandRows) * ${blockN}u;
  let batch = plane / splits;
  let split = plane % splits;
  let kBegin = split * p.chunk;
  let kEnd = min(kBegin + p.chunk, p.k);
  let outBase = p.outOffset + batch * p.outBatch + split * p.m * p.n;`;
}

/** `emit(row, column, outBase, value)`: scales four neighbours of a row, adds bias and what was there, and stores them. */
export function epilogue(variant: MatmulVariant): string {
  const { out, outVector, bias, accumulate } = variant;
  const convert = out === "f32" ? "" : out;
  if (outVector) {
    const type = out === "f32" ? "vec4f" : "vec4<f16>";
    return `
fn emit(row: u32, column: u32, outBase: u32, value: vec4f) {
  if (column >= p.n) { return; }
  let at = (outBase + row * p.outRow + column) >> 2u;
  var result = value * p.alpha;
  ${bias ? `let from = p.biasOffset + column; result += vec4f(${[0, 1, 2, 3].map((j) => `f32(bias[from + ${j}u])`).join(", ")});` : ""}
  ${accumulate ? "result += vec4f(out[at]);" : ""}
  out[at] = ${type}(result);
}`;
  }
  return `
fn emit(row: u32, column: u32, outBase: u32, value: vec4f) {
  for (var j = 0u; j < 4u; j++) {
    if (column + j < p.n) { emitOne(row, column + j, outBase, value[j]); }
  }
}
fn emitOne(row: u32, column: u32, outBase: u32, value: f32) {
  let at = outBase + row * p.outRow + column;
  var result = value * p.alpha;
  ${bias ? "result += f32(bias[p.biasOffset + column]);" : ""}
  ${accumulate ? "result += f32(out[at]);" : ""}
  out[at] = ${convert || "f32"}(result);
}`;
}

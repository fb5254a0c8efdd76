/**
 * What all matrix-product kernels share: their parameters, the order in which workgroups take blocks of the result, and
 * what happens to a finished element.
 *
 * @module
 */
import type { MatmulActivation } from "../../../core/contracts/kernels.ts";
import type { FloatType } from "../spans.ts";
import { FUNCTIONS, UNARY } from "./math.ts";
import type { ElementType, Operand } from "./source.ts";

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
  readonly element: FloatType;
  readonly out: FloatType;
  /** The result's offset, strides and columns allow vector access. */
  readonly outVector: boolean;
  readonly bias: FloatType | undefined;
  readonly accumulate: boolean;
  readonly activation: MatmulActivation | undefined;
  /** What the activation is applied to is stored too, laid out as the result. */
  readonly preactivation: boolean;
  /** The depth, or a split's last part of it, does not fill the last staged block. */
  readonly tail: boolean;
}

/** Scalars of a product, all but `alpha` counting elements. Splits of a matrix lie `m * n` apart in the result. */
export const MATMUL_PARAMS = {
  m: "u32",
  n: "u32",
  k: "u32",
  batches: "u32",
  /** Depth of one split; `k` when it is not split. */
  chunk: "u32",
  aRow: "u32",
  aBatch: "u32",
  bRow: "u32",
  bBatch: "u32",
  outRow: "u32",
  outBatch: "u32",
  alpha: "f32",
} as const;

/** What becomes of a finished sum. */
export type Finish = Pick<
  MatmulVariant,
  "out" | "outVector" | "bias" | "accumulate" | "activation" | "preactivation"
>;

/** Operands that finish a sum: out and, when there are any, bias and preactivation. */
export function finishOperands({ out, outVector, bias, preactivation }: Finish): readonly Operand[] {
  const type: ElementType = outVector ? `vec4<${out}>` : out;
  return [
    { name: "out", type, write: true },
    ...(bias === undefined ? [] : [{ name: "bias", type: bias }]),
    ...(preactivation ? [{ name: "preactivation", type, write: true }] : []),
  ];
}

/** The operands: a, b and those that finish a sum. Operands with vector access come in words of `word` elements. */
export function matmulOperands(variant: MatmulVariant, word: 4 | 8): readonly Operand[] {
  const input = ({ vector }: OperandLayout): ElementType =>
    !vector ? variant.element : word === 8 ? "vec4<u32>" : `vec4<${variant.element}>`;
  return [
    { name: "a", type: input(variant.a) },
    { name: "b", type: input(variant.b) },
    ...finishOperands(variant),
  ];
}

/** The variant in a few letters, for the kernel's name. */
export function variantName(variant: MatmulVariant): string {
  const { a, b, element, out, tail } = variant;
  const order = `${a.deep ? "n" : "t"}${b.deep ? "t" : "n"}`;
  const scalars = `${a.vector ? "" : "a"}${b.vector ? "" : "b"}${variant.outVector ? "" : "o"}`;
  return `${element} ${out} ${order}${scalars && ` scalar-${scalars}`}${finishName(variant)}${tail ? " tail" : ""}`;
}

/** What becomes of a sum, for the kernel's name. */
export function finishName({ bias, accumulate, activation, preactivation }: Finish): string {
  const finished = activation && ` ${activation}${preactivation ? " stored" : ""}`;
  return `${bias ? " bias" : ""}${accumulate ? " accumulate" : ""}${finished ?? ""}`;
}

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
  let plane = group / (blocksM * blocksN);
  if (plane >= p.batches * splits) { return; }
  let inPlane = group % (blocksM * blocksN);
  let band = inPlane / (${GROUP_ROWS}u * blocksN);
  let bandRows = min(blocksM - band * ${GROUP_ROWS}u, ${GROUP_ROWS}u);
  let inBand = inPlane % (${GROUP_ROWS}u * blocksN);
  let rowBegin = (band * ${GROUP_ROWS}u + inBand % bandRows) * ${blockM}u;
  let columnBegin = (inBand / bandRows) * ${blockN}u;
  let batch = plane / splits;
  let split = plane % splits;
  let kBegin = split * p.chunk;
  let kEnd = min(kBegin + p.chunk, p.k);
  let outBase = batch * p.outBatch + split * p.m * p.n;`;
}

/** Aliases and functions for the activation of `V`, a scalar or a vector of four. */
function activationFunctions(activation: MatmulActivation | undefined, vector: boolean): string {
  if (activation === undefined) return "";
  const aliases = vector
    ? "alias V = vec4<f32>; alias U = vec4<u32>; alias B = vec4<bool>;"
    : "alias V = f32; alias U = u32; alias B = bool;";
  return `${aliases}\n${FUNCTIONS}\nfn activate(x: V) -> V { return ${UNARY[activation]}; }`;
}

/** `emit(row, column, outBase, value)`: scales four neighbours of a row, adds bias and what was there, activates and stores them. */
export function epilogue(finish: Finish): string {
  const { out, outVector, bias, accumulate, activation, preactivation } = finish;
  const element = outVector ? `vec4<${out}>` : out;
  const store = `${preactivation ? `$preactivation[p.preactivation_at + at] = ${element}(result);` : ""}
  $out[p.out_at + at] = ${element}(${activation === undefined ? "result" : "activate(result)"});`;
  const held = `${accumulate ? `result += ${outVector ? "vec4<f32>" : "f32"}($out[p.out_at + at]);` : ""}`;
  const functions = activationFunctions(activation, outVector);
  if (outVector) {
    const biases = [0, 1, 2, 3].map((j) => `f32($bias[first + ${j}u])`).join(", ");
    return `${functions}
fn emit(row: u32, column: u32, outBase: u32, value: vec4<f32>) {
  if (column >= p.n) { return; }
  let at = (outBase + row * p.outRow + column) >> 2u;
  var result = value * p.alpha;
  ${bias ? `let first = p.bias_at + column; result += vec4<f32>(${biases});` : ""}
  ${held}
  ${store}
}`;
  }
  return `${functions}
fn emit(row: u32, column: u32, outBase: u32, value: vec4<f32>) {
  for (var j = 0u; j < 4u; j++) {
    if (column + j < p.n) { emitOne(row, column + j, outBase, value[j]); }
  }
}
fn emitOne(row: u32, column: u32, outBase: u32, value: f32) {
  let at = outBase + row * p.outRow + column;
  var result = value * p.alpha;
  ${bias ? "result += f32($bias[p.bias_at + column]);" : ""}
  ${held}
  ${store}
}`;
}

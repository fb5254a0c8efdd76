/**
 * What all attention kernels share: what they are specialised for, operands, visibility under the causal mask, and the
 * order in which workgroups take blocks of rows.
 *
 * Element (b, t, h, d) of an operand lies at `b * xBatch + t * xRow + h * headDim + d` from its first element.
 *
 * @module
 */
import type { FloatType } from "../spans.ts";
import type { ElementType, KernelSource, Operand } from "./source.ts";

/** What a kernel is specialised for. */
export interface AttentionVariant {
  readonly element: FloatType;
  /** Of the log of the sum of exponentials. */
  readonly stats: FloatType;
  readonly headDim: number;
  readonly causal: boolean;
  /** Offsets, strides and the head dimension of every operand allow vector access. */
  readonly vector: boolean;
}

/** Which part of the backward pass a kernel computes, and with it what its rows are. */
export type Owner = "query" | "key";

/** What an operand is to a kernel. Statistics (`lse`, `delta`) are scalars: the log of the sum is stored as `stats`. */
type Use = "read" | "write" | "lse" | "lse write" | "delta" | "delta write";

/** Operands of an attention kernel by name: matrices are read as `words`, or as elements where those do not align. */
export function attentionOperands(
  words: ElementType,
  stats: FloatType,
  uses: Readonly<Record<string, Use>>,
): readonly Operand[] {
  return Object.entries(uses).map(([name, use]) => ({
    name,
    type: use.startsWith("lse") ? stats : use.startsWith("delta") ? "f32" : words,
    write: use.endsWith("write"),
  }));
}

/** Scalars: extents, the scale and the strides of the operands named. */
export function attentionParams(...strided: readonly string[]): Readonly<Record<string, "u32" | "f32">> {
  const params: Record<string, "u32" | "f32"> = {
    batches: "u32",
    heads: "u32",
    keyHeads: "u32",
    queryLength: "u32",
    keyLength: "u32",
    scale: "f32",
  };
  for (const name of strided) {
    params[`${name}Row`] = "u32";
    params[`${name}Batch`] = "u32";
  }
  return params;
}

/** Operands and scalars of a kernel. */
type Signature = Pick<KernelSource, "operands" | "params">;

/** Of forward kernels. */
export function forwardSignature(words: ElementType, stats: FloatType): Signature {
  return {
    operands: attentionOperands(words, stats, {
      query: "read",
      key: "read",
      value: "read",
      out: "write",
      lse: "lse write",
    }),
    params: attentionParams("query", "key", "value", "out"),
  };
}

/** Results of a part of the backward pass. */
export function gradientsOf(owner: Owner): readonly string[] {
  return owner === "query" ? ["dQuery"] : ["dKey", "dValue"];
}

/** Of backward kernels. */
export function backwardSignature(words: ElementType, stats: FloatType, owner: Owner): Signature {
  const results = gradientsOf(owner);
  return {
    operands: attentionOperands(words, stats, {
      query: "read",
      key: "read",
      value: "read",
      gradient: "read",
      ...Object.fromEntries(results.map((name) => [name, "write"] as const)),
      lse: "lse",
      delta: "delta",
    }),
    params: attentionParams("query", "key", "value", "gradient", ...results),
  };
}

/** The variant in a few letters, for the kernel's name. */
export function attentionName({ element, headDim, causal, vector }: AttentionVariant): string {
  return `${element} ${headDim}${causal ? " causal" : ""}${vector ? "" : " scalar"}`;
}

/** Functions that kernels use. `causal` is an expression. */
export function attentionFunctions(causal: string): string {
  return `
const LOG2E = 1.4426950408889634;
const LN2 = 0.6931471805599453;
const LOWEST = -3.0e38;
// Number of keys that a query sees.
fn visible(query: u32) -> u32 {
  if (!(${causal})) { return p.keyLength; }
  return u32(clamp(i32(p.keyLength) - i32(p.queryLength) + i32(query) + 1, 0, i32(p.keyLength)));
}
// First query that sees a key.
fn firstQuery(key: u32) -> u32 {
  if (!(${causal})) { return 0u; }
  return u32(max(i32(key) - i32(p.keyLength) + i32(p.queryLength), 0));
}
// Log of the sum of powers of two, given less their peak; minus infinity for a row that sees nothing.
fn logSum(peak: f32, total: f32) -> f32 {
  if (total > 0.0) { return (peak + log2(total)) * LN2; }
  // Not a constant expression: those may not be infinite.
  return bitcast<f32>(0xff800000u | (p.keyLength & ~p.keyLength));
}`;
}

/**
 * Which rows this workgroup owns: `batch`, `head` (of its kind), and `rowBegin`. Under a causal mask late queries and early
 * keys have the most to do, so they are handed out first; neighbours take the same rows of other heads.
 */
export function attentionPrologue(owner: Owner, rows: number): string {
  const [width, length] = owner === "query" ? ["p.heads", "p.queryLength"] : ["p.keyHeads", "p.keyLength"];
  const block = owner === "query" ? "blocks - 1u - group / planes" : "group / planes";
  return `let planes = p.batches * ${width};
  let blocks = (${length} + ${rows - 1}u) / ${rows}u;
  if (group >= planes * blocks) { return; }
  let plane = group % planes;
  let batch = plane / ${width};
  let head = plane % ${width};
  let rowBegin = (${block}) * ${rows}u;`;
}

/** Declares where the rows of a head begin in an operand: `nameStart`. */
export function headStart(name: string, head: string, headDim: number): string {
  return `let ${name}Start = batch * p.${name}Batch + ${head} * ${headDim}u;`;
}

/** Where the heads of a workgroup's queries begin, forward. */
export function forwardStarts(headDim: number): string {
  return `let keyHead = head * p.keyHeads / p.heads;
  ${headStart("query", "head", headDim)}
  ${headStart("key", "keyHead", headDim)}
  ${headStart("value", "keyHead", headDim)}`;
}

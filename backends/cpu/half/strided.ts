/**
 * Kernels over strided operands of 16-bit floats: binary functions, and copies that add.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { CopyBox, Kernels, StridedOperand } from "../../../core/contracts/kernels.ts";
import { mergeDims, numelOf, stridesOf } from "../../../core/tensor/shape.ts";
import { requireLength } from "../kernels/heap.ts";
import { requireWithin } from "../kernels/strides.ts";
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
export function halfStrided(context: HalfContext): Pick<Kernels, "binary" | "copy"> {
  const { heap, float32 } = context;
  return {
    binary(op, a, b, out, sizes) {
      if (!anyHalf(a.span, b.span, out)) return float32.binary(op, a, b, out, sizes);
      requireDType(op, commonHalf(op, [a.span, b.span, out]), [a.span, b.span, out]);
      requireLength(op, out, numelOf(sizes));
      for (const { span, strides } of [a, b]) requireWithin(op, span, 0, sizes, strides);
      const merged = mergeDims(sizes, [a.strides, b.strides]);
      const [left, right] = merged.strides.map((strides, i) => ({ span: [a, b][i]!.span, strides }));
      const length = Math.min(context.sizes.tile, numelOf(sizes));
      const [x, y, result, compact] = workspaces(heap, [
        2 * length,
        2 * length,
        length,
        Math.ceil(length / 2),
      ]);
      const outStrides = stridesOf(merged.sizes);
      forEachBlock(merged.sizes, context.sizes.tile, (starts, block) => {
        const operands = [
          widenOperand(context, left!, starts, block, x!, compact!),
          widenOperand(context, right!, starts, block, y!, compact!),
        ] as const;
        const count = numelOf(block);
        const sums = part(result!, 0, count);
        float32.binary(op, operands[0], operands[1], sums, block);
        narrow(context, sums, part(out, dot(starts, outStrides), count), 1, count);
      });
    },
    copy(source, target, boxes, accumulate = false) {
      if (!accumulate || !anyHalf(source, target)) return float32.copy(source, target, boxes, accumulate);
      requireDType("copy", commonHalf("copy", [source, target]), [source, target]);
      for (const box of boxes) addBox(context, source, target, box);
    },
  };
}

/** One block of an operand in float32: the run of memory that it lies in, or, when that is long, its elements alone. */
function widenOperand(
  context: HalfContext,
  { span, strides }: StridedOperand,
  starts: readonly number[],
  block: readonly number[],
  space: Span,
  compact: Span,
): StridedOperand {
  const first = dot(starts, strides);
  const last = block.map((size) => size - 1);
  const reach = dot(last, strides) + 1;
  if (reach <= space.length) {
    const run = part(space, 0, reach);
    widen(context, part(span, first, reach), run, 1, reach);
    return { span: run, strides };
  }
  const packed = stridesOf(block);
  const count = numelOf(block);
  const words = asHalf(compact, span, count);
  const box = {
    sizes: block,
    sourceOffset: first,
    sourceStrides: strides,
    targetOffset: 0,
    targetStrides: packed,
  };
  context.float32.copy(span, words, [box]);
  const run = part(space, 0, count);
  widen(context, words, run, 1, count);
  return { span: run, strides: packed };
}

/** Adds a box in float32, block by block. */
function addBox(context: HalfContext, source: Span, target: Span, box: CopyBox): void {
  const { heap, float32 } = context;
  requireWithin("copy source", source, box.sourceOffset, box.sizes, box.sourceStrides);
  requireWithin("copy target", target, box.targetOffset, box.sizes, box.targetStrides);
  const merged = mergeDims(box.sizes, [box.sourceStrides, box.targetStrides]);
  const [sourceStrides, targetStrides] = merged.strides as [number[], number[]];
  const length = Math.min(context.sizes.tile, numelOf(box.sizes));
  const [terms, totals, compact] = workspaces(heap, [length, length, Math.ceil(length / 2)]);
  forEachBlock(merged.sizes, context.sizes.tile, (starts, block) => {
    const count = numelOf(block);
    const packed = { offset: 0, strides: stridesOf(block) };
    const from = { offset: box.sourceOffset + dot(starts, sourceStrides), strides: sourceStrides };
    const to = { offset: box.targetOffset + dot(starts, targetStrides), strides: targetStrides };
    const words = asHalf(compact!, target, count);
    const move = (a: Span, b: Span, left: typeof from, right: typeof from): void =>
      float32.copy(a, b, [
        {
          sizes: block,
          ...{ sourceOffset: left.offset, sourceStrides: left.strides },
          ...{ targetOffset: right.offset, targetStrides: right.strides },
        },
      ]);
    const [term, total] = [part(terms!, 0, count), part(totals!, 0, count)];
    move(source, words, from, packed);
    widen(context, words, term, 1, count);
    move(target, words, to, packed);
    widen(context, words, total, 1, count);
    float32.binary("add", { span: total, strides: [1] }, { span: term, strides: [1] }, total, [count]);
    narrow(context, total, words, 1, count);
    move(words, target, packed, to);
  });
}

/** Blocks of up to `most` elements, in row-major order: where each begins, and its sizes. None when there are no elements. */
function forEachBlock(
  sizes: readonly number[],
  most: number,
  visit: (starts: readonly number[], block: readonly number[]) => void,
): void {
  if (numelOf(sizes) === 0) return;
  if (sizes.length === 0) visit([], []);
  // Dims after `split` are whole in every block, those before it are walked one by one.
  let split = sizes.length - 1;
  let inner = 1;
  while (split > 0 && inner * sizes[split]! <= most) inner *= sizes[split--]!;
  const chunk = Math.floor(most / inner);
  const starts = sizes.map(() => 0);
  while (sizes.length > 0) {
    const count = Math.min(chunk, sizes[split]! - starts[split]!);
    visit(
      starts,
      sizes.map((size, d) => (d < split ? 1 : d === split ? count : size)),
    );
    starts[split]! += count;
    let d = split;
    for (; d > 0 && starts[d] === sizes[d]; d--) {
      starts[d] = 0;
      starts[d - 1]! += 1;
    }
    if (starts[0] === sizes[0]) return;
  }
}

/** The first `count` 16-bit elements of a float32 workspace, of the dtype of `like`. */
function asHalf(space: Span, like: Span, count: number): Span {
  return { buffer: space.buffer, dtype: like.dtype, offset: 2 * space.offset, length: count };
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, x, i) => sum + x * b[i]!, 0);
}

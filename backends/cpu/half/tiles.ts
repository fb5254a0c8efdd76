/**
 * Kernels whose operands are rows of equal numbers of elements, tile by tile: what elementwise, row and optimizer
 * kernels have in common.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { isHalf } from "../../../core/runtime/half/plain.ts";
import { requireLength } from "../kernels/heap.ts";
import { type HalfContext, narrow, part, widen, workspaces } from "./context.ts";

/** One operand of a tiled kernel. */
export interface Operand {
  readonly span: Span;
  /** Elements of a row; 0 for an operand that is there whole for every tile. */
  readonly perRow: number;
  /** Elements of an operand that is there whole, else 0. */
  readonly length: number;
  readonly reads: boolean;
  readonly writes: boolean;
}

type Given = Span | undefined;

/** Rows that are read. */
export const read = (span: Given, perRow = 1): Operand | undefined =>
  span && { span, perRow, length: 0, reads: true, writes: false };
/** Rows that are written. */
export const write = (span: Given, perRow = 1): Operand | undefined =>
  span && { span, perRow, length: 0, reads: false, writes: true };
/** Rows that are read and written. */
export const update = (span: Given, perRow = 1): Operand | undefined =>
  span && { span, perRow, length: 0, reads: true, writes: true };
/** Elements that every tile reads. */
export const readWhole = (span: Given, length: number): Operand | undefined =>
  span && { span, perRow: 0, length, reads: true, writes: false };
/** Elements that stand when the last tile is done. */
export const writeWhole = (span: Given, length: number): Operand | undefined =>
  span && { span, perRow: 0, length, reads: false, writes: true };
/** Room for intermediate results like those in `of`: float32, or the span itself where that is float32. */
export const spare = (of: Given, length: number): Operand | undefined =>
  of && { span: of, perRow: 0, length, reads: false, writes: false };

/**
 * Calls `body` with each tile's part of every operand, in their order: 16-bit ones in float32, others as they lie.
 * `undefined` operands stay so. With no rows it is called once, for what is written whole.
 *
 * @throws ShapeError for spans that are too short.
 */
export function inTiles(
  context: HalfContext,
  kernel: string,
  rows: number,
  operands: readonly (Operand | undefined)[],
  body: (parts: readonly (Span | undefined)[], first: number, count: number) => void,
): void {
  for (const given of operands) {
    if (given) requireLength(kernel, given.span, given.length + rows * given.perRow);
  }
  const widest = Math.max(1, ...operands.map((given) => given?.perRow ?? 0));
  const tile = Math.min(rows, Math.max(1, Math.floor(context.sizes.tile / widest)));
  const lengths = operands.map((given) =>
    given && isHalf(given.span.dtype) ? given.length + tile * given.perRow : 0,
  );
  const spaces = workspaces(context.heap, lengths);
  const tiled = operands.map((given, i) => given && { ...given, space: spaces[i]! });
  const present = tiled.filter((operand) => operand !== undefined);
  const whole = present.filter(({ perRow }) => perRow === 0);
  const byRow = present.filter(({ perRow }) => perRow > 0);
  for (const operand of whole) load(context, operand, 0, 0);
  let first = 0;
  do {
    const count = Math.min(tile, rows - first);
    for (const operand of byRow) load(context, operand, first, count);
    body(
      tiled.map((operand) => operand && partOf(operand, first, count)),
      first,
      count,
    );
    for (const operand of byRow) store(context, operand, first, count);
    first += count;
  } while (first < rows);
  for (const operand of whole) store(context, operand, 0, 0);
}

/** An operand, and where its tiles are in float32 if it is 16-bit. */
interface Tiled extends Operand {
  readonly space: Span;
}

/** What `count` rows from `first` on are in the span. */
function lying({ span, perRow, length }: Operand, first: number, count: number): Span {
  return part(span, first * perRow, length + count * perRow);
}

/** What kernels get of them. */
function partOf(operand: Tiled, first: number, count: number): Span {
  const { span, space, perRow, length } = operand;
  return isHalf(span.dtype) ? part(space, 0, length + count * perRow) : lying(operand, first, count);
}

function load(context: HalfContext, operand: Tiled, first: number, count: number): void {
  if (!operand.reads || !isHalf(operand.span.dtype)) return;
  const to = partOf(operand, first, count);
  widen(context, lying(operand, first, count), to, 1, to.length);
}

function store(context: HalfContext, operand: Tiled, first: number, count: number): void {
  if (!operand.writes || !isHalf(operand.span.dtype)) return;
  const from = partOf(operand, first, count);
  narrow(context, from, lying(operand, first, count), 1, from.length);
}

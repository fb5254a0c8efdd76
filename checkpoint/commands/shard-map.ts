/**
 * A picture of who holds what: for each tensor a bar along the axis in which it is cut, a cell for each stretch of it, in
 * the symbol (and colour) of the file that holds it. Reads the same without colour.
 *
 * @module
 */
import type { Box } from "../../core/contracts/shard.ts";
import { indexBoxes } from "../box-index.ts";
import { wholeBox } from "../boxes.ts";
import type { SourceChunk, SourceTensor } from "./source.ts";

const SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/** Several files share a cell. */
const MIXED = "+";
/** Nothing is there: the tensor has no elements. */
const NOTHING = "-";

/** Grounds of the 256-colour palette that tell neighbours apart, all light enough for black signs. */
const GROUNDS: readonly number[] = [75, 214, 114, 177, 228, 80, 204, 150, 141, 180];

/** The symbol of a file; they repeat after 62. */
export function fileSymbol(file: number): string {
  return SYMBOLS[file % SYMBOLS.length]!;
}

/** A text on the ground of a file. */
export function onGround(text: string, file: number, colour: boolean): string {
  return colour ? `\x1b[38;5;16;48;5;${GROUNDS[file % GROUNDS.length]}m${text}\x1b[0m` : text;
}

/** In which dimensions a tensor is cut: `whole`, `dim 0`, `dims 0, 1`. */
export function cutOf({ shape, chunks }: SourceTensor): string {
  const axes = cutAxes(shape, fullChunks(chunks));
  if (axes.length === 0) return "whole";
  return `${axes.length === 1 ? "dim" : "dims"} ${axes.join(", ")}`;
}

/** The bar of a tensor. */
export function shardBar({ shape, chunks }: SourceTensor, width: number, colour: boolean): string {
  const full = fullChunks(chunks);
  if (full.length === 0) return NOTHING.repeat(width);
  const [axis] = cutAxes(shape, full);
  const index = indexBoxes(full);
  const cells = Array.from({ length: width }, (_, cell) => {
    const region = axis === undefined ? wholeBox(shape) : slabOf(shape, axis, cell, width);
    const files = new Set(index.overlapping(region).map((i) => full[i]!.file));
    return files.size === 1 ? [...files][0] : undefined;
  });
  let bar = "";
  for (let cell = 0; cell < width; ) {
    const file = cells[cell];
    const end = cells.findIndex((other, i) => i > cell && other !== file);
    const run = (end < 0 ? width : end) - cell;
    bar += file === undefined ? MIXED.repeat(run) : onGround(fileSymbol(file).repeat(run), file, colour);
    cell += run;
  }
  return bar;
}

/** The stretch of an axis that a cell stands for: the row in its middle. */
function slabOf(shape: readonly number[], axis: number, cell: number, width: number): Box {
  const row = Math.min(shape[axis]! - 1, Math.floor(((cell + 0.5) * shape[axis]!) / width));
  return {
    offsets: shape.map((_, d) => (d === axis ? row : 0)),
    sizes: shape.map((extent, d) => (d === axis ? 1 : extent)),
  };
}

/** Axes that some chunk does not span. */
function cutAxes(shape: readonly number[], chunks: readonly Box[]): readonly number[] {
  return shape.flatMap((extent, d) => (chunks.some(({ sizes }) => sizes[d] !== extent) ? [d] : []));
}

function fullChunks(chunks: readonly SourceChunk[]): readonly SourceChunk[] {
  return chunks.filter(({ sizes }) => !sizes.includes(0));
}

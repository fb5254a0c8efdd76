/**
 * An index that finds the boxes overlapping a given one: a tree of bounding boxes, split at the median of the axis on
 * which the boxes are spread most. For disjoint boxes a query costs about log(n) plus what it finds, whatever the
 * layout (rows, columns, grids), where a sweep along one axis degrades to comparing everything with everything.
 *
 * @module
 */
import type { Box } from "../core/contracts/shard.ts";
import { boxesOverlap } from "./boxes.ts";

const LEAF = 8;

interface Node {
  readonly bounds: Box;
  /** Range of `order` below this node. */
  readonly begin: number;
  readonly end: number;
  readonly children: readonly [Node, Node] | undefined;
}

/** Finds boxes by region. */
export interface BoxIndex {
  /** Indices of the boxes that share an element with `region`, ascending. */
  overlapping(region: Box): number[];
}

/** Indexes boxes of one tensor; all have its rank and no zero extent. Building costs n log^2(n) at most. */
export function indexBoxes(boxes: readonly Box[]): BoxIndex {
  if (boxes.length <= LEAF) {
    // Most tensors have few chunks, and there are many tensors: no tree for them.
    return {
      overlapping(region: Box): number[] {
        const found: number[] = [];
        for (let i = 0; i < boxes.length; i++) if (boxesOverlap(boxes[i]!, region)) found.push(i);
        return found;
      },
    };
  }
  const order = Uint32Array.from(boxes, (_, i) => i);
  const root = build(boxes, order, 0, boxes.length);
  return {
    overlapping(region: Box): number[] {
      const found: number[] = [];
      const pending = [root];
      for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
        if (!boxesOverlap(node.bounds, region)) continue;
        if (node.children !== undefined) {
          pending.push(...node.children);
          continue;
        }
        for (let i = node.begin; i < node.end; i++) {
          if (boxesOverlap(boxes[order[i]!]!, region)) found.push(order[i]!);
        }
      }
      return found.sort((a, b) => a - b);
    },
  };
}

function build(boxes: readonly Box[], order: Uint32Array, begin: number, end: number): Node {
  const rank = boxes[order[begin]!]!.sizes.length;
  const lows = new Array<number>(rank).fill(Number.POSITIVE_INFINITY);
  const highs = new Array<number>(rank).fill(Number.NEGATIVE_INFINITY);
  const lastStart = new Array<number>(rank).fill(Number.NEGATIVE_INFINITY);
  for (let i = begin; i < end; i++) {
    const box = boxes[order[i]!]!;
    for (let d = 0; d < rank; d++) {
      const offset = box.offsets[d]!;
      lows[d] = Math.min(lows[d]!, offset);
      highs[d] = Math.max(highs[d]!, offset + box.sizes[d]!);
      lastStart[d] = Math.max(lastStart[d]!, offset);
    }
  }
  const bounds: Box = { offsets: lows, sizes: highs.map((high, d) => high - lows[d]!) };
  // The spread of starts relative to the extent: an axis that every box spans whole is never worth splitting.
  let axis = -1;
  let widest = 0;
  for (let d = 0; d < rank; d++) {
    const spread = (lastStart[d]! - lows[d]!) / bounds.sizes[d]!;
    if (spread > widest) {
      widest = spread;
      axis = d;
    }
  }
  if (end - begin <= LEAF || axis < 0) return { bounds, begin, end, children: undefined };
  sortRange(order, begin, end, (i) => boxes[i]!.offsets[axis]!);
  const middle = (begin + end) >> 1;
  return {
    bounds,
    begin,
    end,
    children: [build(boxes, order, begin, middle), build(boxes, order, middle, end)],
  };
}

/** Sorts `order[begin..end)` by key; a range already in order, the usual case below the first split, costs one pass. */
function sortRange(order: Uint32Array, begin: number, end: number, key: (i: number) => number): void {
  for (let i = begin + 1; i < end; i++) {
    if (key(order[i - 1]!) > key(order[i]!)) {
      order.subarray(begin, end).sort((a, b) => key(a) - key(b) || a - b);
      return;
    }
  }
}

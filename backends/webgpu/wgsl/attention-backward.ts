/**
 * What the tiled backward kernels share. Probabilities are computed again from the saved log of their sum. One kernel owns
 * blocks of queries and walks over keys (dQuery), the same one the other way round owns keys and walks over the queries of
 * all heads that share them (dKey, dValue), so that no two workgroups add to one element.
 *
 * @module
 */
import { headStart, type Owner } from "./attention-common.ts";

/**
 * Operands by their part: x are the owned rows and y the others; x1, y1 are query and key, whose product is the score; x2,
 * y2 are the output's gradient and the value, whose product is the probability's gradient.
 */
export interface BackwardSides {
  readonly x1: string;
  readonly x2: string;
  readonly y1: string;
  readonly y2: string;
  /** Rows of either. */
  readonly xLength: string;
  readonly yLength: string;
}

/** Which operand is what. */
export function backwardSides(owner: Owner): BackwardSides {
  const [queryLength, keyLength] = ["p.queryLength", "p.keyLength"];
  return owner === "query"
    ? { x1: "query", x2: "gradient", y1: "key", y2: "value", xLength: queryLength, yLength: keyLength }
    : { x1: "key", x2: "value", y1: "query", y2: "gradient", xLength: keyLength, yLength: queryLength };
}

/** Index of a query's statistics. */
export function statisticsAt(query: string): string {
  return `(batch * p.heads + queryHead) * p.queryLength + ${query}`;
}

const queryStarts = (headDim: number): string =>
  `${headStart("query", "queryHead", headDim)} ${headStart("gradient", "queryHead", headDim)}`;

/** Where the heads of this workgroup's rows begin. */
export function ownedStarts(owner: Owner, headDim: number): string {
  const ofQuery = owner === "query";
  return `${ofQuery ? "let queryHead = head; let keyHead = head * p.keyHeads / p.heads;" : "let keyHead = head;"}
  ${headStart("key", "keyHead", headDim)} ${headStart("value", "keyHead", headDim)}
  ${ofQuery ? queryStarts(headDim) : ""}`;
}

/** A walk over the rows that the owned ones meet. */
export interface Walk {
  readonly headDim: number;
  /** Owned rows, and rows of a step. */
  readonly rows: number;
  readonly block: number;
  /** What the owned rows need to know before, when they are queries. */
  readonly statistics: string;
  /** The loop over blocks of one head, between expressions. */
  loop(begin: string, end: string): string;
}

/** Over the keys that any owned query sees, or over the queries of all heads that see any owned key. */
export function walkOthers(owner: Owner, { headDim, rows, block, statistics, loop }: Walk): string {
  if (owner === "query") {
    return `${statistics}
  let end = visible(min(rowBegin + ${rows - 1}u, p.queryLength - 1u));
  ${loop("0u", "end")}`;
  }
  return `let sharing = p.heads / p.keyHeads;
  let firstBlock = firstQuery(rowBegin) / ${block}u * ${block}u;
  for (var queryHead = head * sharing; queryHead < (head + 1u) * sharing; queryHead++) {
  ${queryStarts(headDim)}
  ${loop("firstBlock", "p.queryLength")}
  }`;
}

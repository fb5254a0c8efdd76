/**
 * Gradient division: by what, when and with which reductions a sum of gradients over ranks becomes their mean.
 *
 * Two rules: FSDP2's (`_get_gradient_divide_factors` of torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py), which
 * lets the collective average, and FSDP1's (`_get_gradient_predivide_factor` of torch/distributed/fsdp), which divides in
 * two steps, so that neither the terms nor their sum leave the range of 16 bits.
 *
 * @module
 */
import type { DType } from "../contracts/dtype.ts";

/** What a division is planned for. */
export interface DivisionRequest {
  /** What gradients are reduced in. */
  readonly dtype: DType;
  /** Ranks that reduce-scatter. */
  readonly shardSize: number;
  /** Ranks that all-reduce what the first left; 1 without replication. */
  readonly replicateSize: number;
  /** What the sum is to be divided by; `undefined`: the number of all ranks. */
  readonly factor: number | undefined;
  /** Only sums, for collectives that have no average. */
  readonly forceSum: boolean;
}

/** How gradients are divided on their way. */
export interface DivisionPlan {
  /** Divides what goes into the reduce-scatter; 1: nothing is done. */
  readonly predivide: number;
  readonly reduceScatter: "sum" | "avg";
  readonly allReduce: "sum" | "avg";
  /** Divides what comes out at the end; 1: nothing is done. */
  readonly postdivide: number;
}

/** A rule of division. */
export type GradientDivision = (request: DivisionRequest) => DivisionPlan;

/** The power of two near the root of `factor` that divides it: FSDP1's pre-division. */
export function predivideFactor(factor: number): number {
  let power = 1;
  while (factor % power === 0 && factor / power > power) power *= 2;
  return power;
}

/** FSDP1's rule: divide by about the root before, by the rest after. */
export const splitDivision: GradientDivision = ({ shardSize, replicateSize, factor }) => {
  const total = factor ?? shardSize * replicateSize;
  const predivide = predivideFactor(total);
  return { predivide, reduceScatter: "sum", allReduce: "sum", postdivide: total / predivide };
};

/** FSDP2's rule: averages where the dtype has the range for a sum, FSDP1's two steps where it has not. */
export const averageDivision: GradientDivision = (request) => {
  const { dtype, shardSize, replicateSize, factor, forceSum } = request;
  const total = shardSize * replicateSize;
  const sums = { predivide: 1, reduceScatter: "sum", allReduce: "sum", postdivide: 1 } as const;
  if (forceSum) return { ...sums, postdivide: factor ?? total };
  if (dtype === "float16") return splitDivision(request);
  if (factor === undefined) return total === 1 ? sums : { ...sums, reduceScatter: "avg", allReduce: "avg" };
  return factor === shardSize ? { ...sums, reduceScatter: "avg" } : { ...sums, predivide: factor };
};

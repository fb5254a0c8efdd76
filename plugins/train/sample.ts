/**
 * Choosing the next token from logits.
 *
 * @module
 */
import { randomUniform, streamKey } from "../../core/tensor/random.ts";

/** How to choose. */
export interface SampleOptions {
  /** 0 takes the likeliest token. */
  readonly temperature: number;
  /** Only this many likeliest tokens are considered; all when 0. */
  readonly topK: number;
  readonly seed: number;
}

/** The token that follows, drawn for place `position` of the seed's stream. Ties go to the lower token. */
export function sampleToken(logits: ArrayLike<number>, position: number, options: SampleOptions): number {
  const order = Array.from({ length: logits.length }, (_, i) => i).sort(
    (a, b) => logits[b]! - logits[a]! || a - b,
  );
  if (options.temperature === 0) return order[0]!;
  const kept = options.topK > 0 ? order.slice(0, options.topK) : order;
  const best = logits[kept[0]!]!;
  const weights = kept.map((token) => Math.exp((logits[token]! - best) / options.temperature));
  const draw = new Float64Array(1);
  randomUniform(streamKey(options.seed, "sample"), position, draw);
  let left = draw[0]! * weights.reduce((sum, weight) => sum + weight, 0);
  const at = weights.findIndex((weight) => {
    left -= weight;
    return left < 0;
  });
  return kept[at === -1 ? kept.length - 1 : at]!;
}

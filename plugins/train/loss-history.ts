/**
 * The losses of a run, for whoever looks at its checkpoints: every step's while there are few, fewer and fewer of them as
 * there are more, so that a long run's checkpoints do not grow.
 *
 * @module
 */
import type { Value } from "../../core/contracts/checkpointer.ts";

/** Losses by step. */
export interface LossHistory {
  /** Adds the loss of a step, which is later than all before. */
  add(step: number, loss: number): void;
  /** Pairs of step and loss, in order: at most `MOST_POINTS`. */
  points(): readonly (readonly [step: number, loss: number])[];
  /** Takes up what a checkpoint of `step` has; what does not look like losses is left out. */
  restore(saved: Value | undefined, step: number): void;
}

/** Points that are kept at most. */
export const MOST_POINTS = 1024;

/** No losses yet. */
export function createLossHistory(): LossHistory {
  let points: (readonly [number, number])[] = [];
  /** Kept are steps that this divides. */
  let every = 1;
  const add = (step: number, loss: number): void => {
    // A loss that is no number has no place in a picture, and none in JSON.
    if (step % every !== 0 || !Number.isFinite(loss)) return;
    points.push([step, loss]);
    while (points.length > MOST_POINTS) {
      every *= 2;
      points = points.filter(([kept]) => kept % every === 0);
    }
  };
  return {
    add,
    points: () => [...points],
    restore(saved: Value | undefined, step: number): void {
      if (!Array.isArray(saved)) return;
      for (const point of saved as readonly Value[]) {
        if (!Array.isArray(point)) continue;
        const [at, loss] = point as readonly Value[];
        if (typeof at === "number" && typeof loss === "number" && at <= step) add(at, loss);
      }
      // What was thinned goes on as thin: neighbouring multiples of a number have it as their greatest common divisor.
      if (points.length >= MOST_POINTS / 2) every = points.reduce((divisor, [at]) => gcd(divisor, at), 0);
    },
  };
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

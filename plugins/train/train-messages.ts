/**
 * What the ranks of a training run tell whoever launched it.
 *
 * @module
 */
import type { MemoryReport } from "../../core/contracts/memory.ts";

/** What rank 0 reports while it trains. */
export type TrainMessage =
  | {
      readonly kind: "start";
      readonly parameters: number;
      readonly device: string;
      readonly firstStep: number;
    }
  | { readonly kind: "evaluated"; readonly loss: number }
  | {
      readonly kind: "step";
      /** Steps done. */
      readonly step: number;
      readonly loss: number;
      /** Before clipping; absent when gradients are not clipped. */
      readonly gradNorm: number | undefined;
      readonly lr: number;
      readonly tokensPerSecond: number;
      /** Of rank 0. */
      readonly memory: MemoryReport;
      /** Highest peak of any rank. */
      readonly peakMemory: number;
    }
  | {
      readonly kind: "saved";
      readonly name: string;
      readonly bytes: number;
      /** From when the step ended until it was committed. */
      readonly seconds: number;
      /** Of these, those for which training stood still. */
      readonly blocked: number;
    }
  | { readonly kind: "save-failed"; readonly step: number; readonly problem: string }
  | { readonly kind: "retention-failed"; readonly problem: string };

/** What every rank returns. */
export interface TrainResult {
  /** Steps done, those before a resume too. */
  readonly step: number;
  readonly stopped: boolean;
  readonly heldOut: { readonly before: number; readonly after: number } | undefined;
  readonly memory: MemoryReport;
  /** Bytes of parameters, gradients and optimizer state if nothing were sharded. */
  readonly unshardedState: number;
}

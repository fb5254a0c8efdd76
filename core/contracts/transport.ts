/**
 * Transport: starts the ranks of a job and gives each its collective. Registered under the collective's name.
 *
 * A rank program is named by module and export, because ranks may be threads or processes that import it afresh.
 *
 * @module
 */
import type { Collective } from "./collective.ts";

/** What a rank is given. */
export interface RankContext {
  readonly rank: number;
  readonly worldSize: number;
  readonly collective: Collective;
  /** This rank's own memory, which the other ranks of its host can read; a host backend that keeps its tensors in it saves collectives a copy. */
  readonly hostMemory?: WebAssembly.Memory;
  /** Ranks that run on this host, for sharing cores. */
  readonly localWorldSize: number;
  /** True once the run was asked to stop (Ctrl-C). A rank ends its step and returns; ranks agree on when by a collective. */
  stopRequested(): boolean;
  /** Sends a message to whoever launched the run. Must be structured-cloneable. */
  report(message: unknown): void;
}

/** Where a rank's function is. */
export interface RankProgram {
  /** Absolute module URL. */
  readonly module: string;
  /** Name of the exported `RankFunction`. */
  readonly export: string;
  /** Structured-cloneable arguments, the same for every rank. */
  readonly args: unknown;
}

/** The function that a rank runs. Its result must be structured-cloneable. */
export type RankFunction = (context: RankContext, args: unknown) => Promise<unknown>;

/** A run in progress. */
export interface RankJob {
  /** Results in rank order. Rejects with the first failing rank's error, in which the message names the rank. */
  readonly results: Promise<readonly unknown[]>;
  /** Asks the ranks to stop after their step. */
  requestStop(): void;
  /** Ends the ranks at once. */
  kill(): Promise<void>;
}

/** Options of a launch. */
export interface LaunchOptions {
  readonly worldSize: number;
  onMessage?(rank: number, message: unknown): void;
}

/** A way to run ranks. */
export interface Transport {
  readonly name: string;
  launch(program: RankProgram, options: LaunchOptions): RankJob;
}

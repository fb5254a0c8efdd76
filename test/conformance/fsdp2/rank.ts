/**
 * What the suite's programs are given, and what says which ranks run.
 *
 * @module
 */
import type { Device } from "../../../core/tensor/device.ts";
import type { TestRank } from "../../support/ranks.ts";
import type { Delay } from "./delayed.ts";

/** A rank, its device and its group. */
export interface ConformanceRank extends TestRank {
  /** Makes a device of the CPU, for offloading, which goes when the job ends. */
  hostDevice(): Promise<Device>;
}

/** A program of this suite: gets a rank and cloneable arguments, and returns what it found. */
export type RankProgramOf<A, R> = (rank: ConformanceRank, args: A) => Promise<R>;

/** A backend, named so that every rank finds it by itself. */
export interface BackendSource {
  /** URL of a module. */
  readonly module: string;
  /** Its export that is a `BackendFactory`. */
  readonly export: string;
  readonly settings?: Readonly<Record<string, string>>;
  /** Its memory is kept from the host's sight, and transfers take their time. */
  readonly far?: boolean;
}

/** A program to run. */
export interface ProgramCall {
  /** Its name among `programs/mod.ts`. */
  readonly program: string;
  readonly args: unknown;
  /** What of the group's calls is late. */
  readonly delay?: Delay | undefined;
}

/** What a rank is sent: programs to run one after the other. */
export interface ProgramCalls {
  readonly backend: BackendSource;
  readonly calls: readonly ProgramCall[];
}

/**
 * What units do in a step, told to whoever listens, in the order of the program: for tests of schedules and for tools
 * that show them.
 *
 * @module
 */
import type { DType } from "../contracts/dtype.ts";

/** Something that a unit did. */
export type UnitEvent =
  | {
      /**
       * `unshard`: began to gather parameters that were not there. `reshard`: freed them. `postBackward`: its part of a
       * backward pass ended; a reduction, if there is one, comes next.
       */
      readonly kind: "unshard" | "reshard" | "postBackward";
      /** The unit's name: path of its module from the root (`""` for the root), several joined by commas. */
      readonly unit: string;
    }
  | {
      /** A collective was started. */
      readonly kind: "allGather" | "reduceScatter" | "allReduce";
      readonly unit: string;
      /** Elements of this rank's input. */
      readonly numel: number;
      /** `uint8` where one gather carries several dtypes. */
      readonly dtype: DType;
      /** Ranks that take part. */
      readonly ranks: number;
      /** How it reduces; absent for gathers. */
      readonly op?: "sum" | "avg";
    };

/** Told of every event at the moment it happens. Must not throw, nor call the engine. */
export type UnitListener = (event: UnitEvent) => void;

/**
 * What the launcher and a rank's thread say to each other.
 *
 * @module
 */
import type { RankProgram } from "../../../core/contracts/transport.ts";
import type { RemoteError } from "../remote-error.ts";
import type { SharedMemories } from "./rank-world.ts";

/** What a rank's thread is started with. */
export interface RankStart {
  readonly rank: number;
  readonly program: RankProgram;
  readonly shared: SharedMemories;
  /** Offset of the block of the group of all ranks. */
  readonly group: number;
}

/** From a rank to the launcher. */
export type RankMessage =
  | { readonly kind: "report"; readonly message: unknown }
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "failed"; readonly error: RemoteError };

/** From the launcher to a rank: its outcome was received, and it may go. */
export const LEAVE = "leave";

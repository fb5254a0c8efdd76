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
  | ({ readonly kind: "done"; readonly result: unknown } & Ending)
  | ({ readonly kind: "failed"; readonly error: RemoteError } & Ending);

/** How a rank's thread goes on when its function has ended. */
export interface Ending {
  /** Something in it asked to stay until the process ends: it is not told to leave, nor waited for. */
  readonly kept: boolean;
}

/** From the launcher to a rank: its outcome was received, and it may go. */
export const LEAVE = "leave";

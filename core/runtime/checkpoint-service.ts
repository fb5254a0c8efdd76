/**
 * A checkpoint service inside this process: a kind, so that whoever wants one need not know who brings it.
 *
 * @module
 */
import type { Kind } from "../contracts/plugin.ts";

/** A service that runs. */
export interface CheckpointService {
  /** Where, for example `http://127.0.0.1:40123`; a run's checkpoints are at `URL/runs/NAME`. */
  readonly url: string;
  /** Takes no more requests, and ends those under way. */
  close(): Promise<void>;
}

/**
 * Starts a service over a directory on a free port of the loopback interface. A run's checkpoints then lie in the folder
 * of its name there. @throws ConfigError when it cannot listen.
 */
export type CheckpointServiceFactory = (directory: string) => Promise<CheckpointService>;

/** Services that a process can start for itself. */
export const CHECKPOINT_SERVICE: Kind<CheckpointServiceFactory> = { name: "checkpoint service" };

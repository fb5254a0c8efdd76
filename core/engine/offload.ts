/**
 * Offload: a unit's shards, their gradients and the optimizer's state live on another device than the one that computes,
 * in host memory, as FSDP2's `CPUOffloadPolicy`.
 *
 * @module
 */
import type { Device } from "../tensor/device.ts";

/** Where a unit keeps what it does not compute with. */
export interface OffloadPolicy {
  /** A device whose memory is the host's (the CPU's). The optimizer's step runs there. */
  readonly device: Device;
}

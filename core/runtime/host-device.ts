/**
 * A second device in the host's memory, for shards that are kept there while another device computes.
 *
 * @module
 */
import { BACKEND, type Registry } from "../contracts/plugin.ts";
import type { RankContext } from "../contracts/transport.ts";
import { Device } from "../tensor/device.ts";

/** Makes one. Whoever asks disposes its backend, after the model's own device. */
export async function createHostDevice(
  registry: Registry,
  context: Pick<RankContext, "rank" | "localWorldSize">,
  seed: number,
): Promise<Device> {
  const { rank, localWorldSize } = context;
  const backend = await registry.get(BACKEND, "cpu").create({ rank, localWorldSize });
  return new Device(backend, { seed, rank });
}

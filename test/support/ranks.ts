/** Runs one function as N ranks in this event loop, each with a CPU device of its own. */
import { localCollectives } from "../../backends/collectives/local/group.ts";
import { cpuBackend } from "../../backends/cpu/mod.ts";
import type { Collective, Work } from "../../core/contracts/collective.ts";
import type { BackendFactory } from "../../core/contracts/plugin.ts";
import { type DeviceMesh, initDeviceMesh } from "../../core/runtime/device-mesh.ts";
import { Device } from "../../core/tensor/device.ts";

const plainCpu: BackendFactory["create"] = (options) =>
  cpuBackend.create({ ...options, settings: { matmul: "plain" } });

/** What a rank of a test is given. */
export interface TestRank {
  readonly rank: number;
  readonly worldSize: number;
  readonly device: Device;
  readonly mesh: DeviceMesh;
  /** The world, counted. */
  readonly collective: Collective;
  /** Names of the collectives that this rank started, in order. */
  readonly calls: string[];
}

/** A collective that notes what is called. */
export function counted(inner: Collective, calls: string[]): Collective {
  const note = (name: string, work: Work): Work => {
    calls.push(name);
    return work;
  };
  return {
    name: inner.name,
    rank: inner.rank,
    size: inner.size,
    allGather: (output, input) => note("allGather", inner.allGather(output, input)),
    reduceScatter: (output, input, op, dtype) =>
      note("reduceScatter", inner.reduceScatter(output, input, op, dtype)),
    allReduce: (data, op, dtype) => note("allReduce", inner.allReduce(data, op, dtype)),
    broadcast: (data, root) => note("broadcast", inner.broadcast(data, root)),
    share: (input, filled) => {
      calls.push("share");
      return inner.share(input, filled);
    },
    window: (byteLength) => inner.window(byteLength),
    barrier: () => note("barrier", inner.barrier()),
    split: (color, key) => inner.split(color, key),
    abort: (reason) => inner.abort(reason),
    close: () => inner.close(),
  };
}

/** Runs `body` on every rank, on devices of `create`, and returns the results in rank order. A rank that fails ends the others. */
export async function runRanks<T>(
  worldSize: number,
  body: (rank: TestRank) => Promise<T>,
  create: BackendFactory["create"] = plainCpu,
): Promise<T[]> {
  const world = localCollectives(worldSize);
  return await Promise.all(
    world.map(async (inner, rank) => {
      const calls: string[] = [];
      const collective = counted(inner, calls);
      const backend = await create({ localWorldSize: worldSize, rank });
      try {
        const mesh = await initDeviceMesh(collective);
        return await body({
          rank,
          worldSize,
          device: new Device(backend, { seed: 7 }),
          mesh,
          collective,
          calls,
        });
      } catch (error) {
        inner.abort(error instanceof Error ? error.message : String(error));
        throw error;
      } finally {
        await backend.dispose();
      }
    }),
  );
}

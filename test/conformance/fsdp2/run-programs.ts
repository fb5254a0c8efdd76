/**
 * The one function that ranks of this suite run: it makes the rank's device as the subject under test has it, and runs
 * programs on it, one after the other.
 *
 * @module
 */
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import type { Backend } from "../../../core/contracts/backend.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { BackendFactory } from "../../../core/contracts/plugin.ts";
import type { RankContext } from "../../../core/contracts/transport.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import { counted } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";
import { delayed } from "./delayed.ts";
import * as programs from "./programs/mod.ts";
import type { ProgramCall, ProgramCalls, RankProgramOf } from "./rank.ts";

const SEED = 7;

/** Runs programs on this rank, and returns what each found. */
export async function runPrograms(
  context: RankContext,
  { backend: source, calls }: ProgramCalls,
): Promise<readonly unknown[]> {
  const { rank, localWorldSize, hostMemory } = context;
  const factory = ((await import(source.module)) as Readonly<Record<string, BackendFactory>>)[source.export];
  if (factory === undefined)
    throw new ConfigError(`Running a rank failed: ${source.module} has no export ${source.export}`);
  const backend = await factory.create({ hostMemory, rank, localWorldSize, settings: source.settings });
  const hosts: Backend[] = [];
  const hostDevice = async (): Promise<Device> => {
    const host = await cpuBackend.create({ rank, localWorldSize, settings: { matmul: "plain" } });
    hosts.push(host);
    return new Device(host, { seed: SEED });
  };
  try {
    const found: unknown[] = [];
    for (const call of calls) {
      const device = new Device(source.far === true ? remote(backend) : backend, { seed: SEED });
      found.push(await runProgram(context, call, device, hostDevice));
    }
    return found;
  } finally {
    for (const host of hosts) await host.dispose();
    await backend.dispose();
  }
}

async function runProgram(
  { rank, worldSize, collective: world }: RankContext,
  { program, args, delay }: ProgramCall,
  device: Device,
  hostDevice: () => Promise<Device>,
): Promise<unknown> {
  const run = (programs as unknown as Readonly<Record<string, RankProgramOf<unknown, unknown>>>)[program];
  if (run === undefined) throw new ConfigError(`Running a rank failed: there is no program ${program}`);
  const calls: string[] = [];
  const collective = counted(delay === undefined ? world : delayed(world, delay), calls);
  const mesh = await initDeviceMesh(collective);
  return await run({ rank, worldSize, device, mesh, collective, calls, hostDevice }, args);
}

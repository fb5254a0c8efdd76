/** Options together: however a model is sharded, it trains as one rank alone does. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { type AllGatherExtension, checkpoint, type Parameter } from "../../../core/nn/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import { type FullyShardOptions, fullyShard } from "../../../plugins/fsdp2/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";
import { expectSame, trainedAlone, trainStack } from "../../support/training.ts";

/** Gathers copies of what is stored, by the way of an extension. */
const copies: AllGatherExtension = {
  preAllGather: (shard, { device }) => ({ inputs: [device.copyOf(shard)], metadata: undefined }),
  postAllGather: ([output], _, { shape }) => output!.alias([shape.reduce((a, b) => a * b, 1)]),
};

const options = fc.record({
  mesh: fc.constantFrom<readonly number[]>([1], [2], [3], [4], [2, 2], [3, 1], [1, 4], [6]),
  /** Of the groups in turn: a number stands for the smallest divisor of the shard group above 1. */
  reshard: fc.array(fc.constantFrom<boolean | 2 | undefined>(true, false, 2, undefined), {
    minLength: 4,
    maxLength: 4,
  }),
  forwardPrefetch: fc.boolean(),
  lists: fc.boolean(),
  lastDim: fc.boolean(),
  extended: fc.boolean(),
  checkpointed: fc.constantFrom("none", "blocks", "layers", "all"),
  offloaded: fc.boolean(),
  far: fc.boolean(),
  buffers: fc.integer({ min: 1, max: 3 }),
  ahead: fc.integer({ min: 0, max: 3 }),
  wide: fc.boolean(),
});
type Options = typeof options extends fc.Arbitrary<infer T> ? T : never;

function shard(model: Stack, mesh: FullyShardOptions["mesh"], host: Device, chosen: Options): void {
  const size = mesh.group(mesh.shape.length - 1).size;
  const divisor = [2, 3].find((k) => size % k === 0) ?? 1;
  const { forwardPrefetch, lastDim, offloaded, wide } = chosen;
  const how = (group: number): FullyShardOptions => {
    const asked = chosen.reshard[group];
    return {
      mesh,
      reshardAfterForward: asked === 2 ? divisor : asked,
      forwardPrefetch,
      shardPlacementFn: lastDim ? (parameter: Parameter) => parameter.shape.length - 1 : undefined,
      offloadPolicy: offloaded ? { device: host } : undefined,
      mpPolicy: wide ? { reduceDtype: "float64" } : undefined,
    };
  };
  if (chosen.extended) {
    model.outer.weight.allGatherExtension = copies;
    model.blocks[1]!.up.bias!.allGatherExtension = copies;
  }
  if (chosen.checkpointed === "layers") for (const { up, down } of model.blocks) [up, down].map(checkpoint);
  if (chosen.checkpointed === "blocks") model.blocks.map(checkpoint);
  if (chosen.checkpointed === "all") checkpoint(model);
  const groups = chosen.lists
    ? [
        ...fullyShard([model.blocks[0]!, model.blocks[2]!], how(0)),
        fullyShard(model.blocks[1]!, how(1)),
        ...fullyShard([model.outer, model.inner], how(2)),
      ]
    : model.blocks.map((block, i) => fullyShard(block, how(i)));
  const root = fullyShard(model, how(3));
  root.setReduceScatterMaxInputBuffers(chosen.buffers);
  if (chosen.ahead === 0) return;
  for (const [i, group] of groups.entries()) {
    group.setModulesToForwardPrefetch(groups.slice(i + 1, i + 1 + chosen.ahead));
    group.setModulesToBackwardPrefetch(groups.slice(Math.max(0, i - chosen.ahead), i).toReversed());
  }
}

async function trainWith(rank: TestRank, chosen: Options) {
  const backend = await cpuBackend.create({ settings: { matmul: "plain" } });
  try {
    const mesh = await initDeviceMesh(rank.collective, chosen.mesh);
    const device = chosen.far ? new Device(remote(rank.device.backend), { seed: 7 }) : rank.device;
    const host = new Device(backend, { seed: 7 });
    const trained = await trainStack(
      { ...rank, device },
      { shard: (model) => shard(model, mesh, host, chosen) },
    );
    expect(backend.memory.report().currentTotal).toBe(0);
    return trained;
  } finally {
    await backend.dispose();
  }
}

describe("options together", () => {
  test("train as one rank alone does", async () => {
    const reference = await trainedAlone();
    const property = fc.asyncProperty(options, async (chosen) => {
      const world = chosen.mesh.reduce((a, b) => a * b, 1);
      expectSame(await runRanks(world, (rank) => trainWith(rank, chosen)), reference);
    });
    await fc.assert(property, { numRuns: 25, endOnFailure: true });
  }, 60_000);
});

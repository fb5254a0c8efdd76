import { describe, expect, test } from "bun:test";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { ConfigError, StateError } from "../../../core/contracts/errors.ts";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import { type FullyShardOptions, fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";
import { forwardBackward, smallStack } from "../../support/training.ts";

/** Calls `body` with a rank whose device computes, and a device in host memory that keeps. */
async function withHost<T>(
  rank: TestRank,
  far: boolean,
  body: (rank: TestRank, host: Device) => Promise<T>,
): Promise<T> {
  const backend = await cpuBackend.create({ settings: { matmul: "plain" } });
  try {
    const { device } = rank;
    const compute = far ? new Device(remote(device.backend), { seed: device.seed }) : device;
    return await body({ ...rank, device: compute }, new Device(backend, { seed: device.seed }));
  } finally {
    await backend.dispose();
  }
}

/** Weights and norms after some steps. */
async function train(rank: TestRank, options: Partial<FullyShardOptions>, micros = 1) {
  const model = smallStack(2);
  const how = { mesh: rank.mesh, ...options };
  const { outputDtype: _, ...inner } = options.mpPolicy ?? {};
  for (const block of model.blocks) fullyShard(block, { ...how, mpPolicy: inner });
  const root = fullyShard(model, how);
  await model.to(rank.device);
  const optimizer = new AdamW(model.parameters(), { lr: 0.01 });
  const norms: number[] = [];
  for (let step = 0; step < 3; step++) {
    for (let micro = 0; micro < micros; micro++) {
      root.setRequiresGradientSync(micro === micros - 1);
      await forwardBackward(rank, model, step * micros + micro);
    }
    norms.push(await clipGradNorm(model.parameters(), 0.5));
    optimizer.step();
    optimizer.zeroGrad();
  }
  const weights = await Promise.all(model.parameters().map((parameter) => gatherParameter(parameter)));
  return { norms, weights, parameters: model.parameters(), optimizer };
}

describe("offloading", () => {
  for (const worldSize of [1, 2, 3, 4]) {
    for (const far of [false, true]) {
      test(`gives the same bits on ${worldSize} ranks, ${far ? "from memory that the host does not see" : "from one host device to another"}`, async () => {
        await runRanks(worldSize, async (rank) => {
          await withHost(rank, far, async (own, host) => {
            const plain = await train(own, {}, 2);
            const kept = await train(own, { offloadPolicy: { device: host } }, 2);
            expect(kept.norms).toEqual(plain.norms);
            expect(kept.weights).toEqual(plain.weights);
            for (const parameter of kept.parameters) {
              expect(parameter.local.device).toBe(host);
              for (const { tensor } of kept.optimizer.state(parameter)!.tensors)
                expect(tensor.device).toBe(host);
            }
          });
        });
      });
    }
  }

  test("keeps nothing but what computes on the computing device, mixed precision and replicas included", async () => {
    await runRanks(4, async (rank) => {
      await withHost(rank, true, async (own, host) => {
        const mesh = await initDeviceMesh(own.collective, [2, 2]);
        const mpPolicy = { paramDtype: "float64", reduceDtype: "float64", outputDtype: "float32" } as const;
        const { parameters } = await train(own, { mesh, mpPolicy, offloadPolicy: { device: host } });
        const { current } = own.device.backend.memory.report();
        expect([current.parameter, current.gradient, current.optimizer, current.communication]).toEqual([
          0, 0, 0, 0,
        ]);
        const kept = parameters.reduce((sum, { local }) => sum + 4 * local.numel, 0);
        expect(host.backend.memory.report().current.parameter).toBeGreaterThanOrEqual(kept);
        expect(host.backend.memory.report().current.optimizer).toBe(2 * kept);
      });
    });
  });

  test("takes a model that is on the host device, or, where the host sees it, on the other one", async () => {
    await runRanks(2, async (rank) => {
      await withHost(rank, false, async (own, host) => {
        const weights: unknown[] = [];
        for (const start of [own.device, host]) {
          const model = await smallStack(1).to(start);
          fullyShard(model, { mesh: own.mesh, offloadPolicy: { device: host } });
          await model.to(own.device);
          expect(model.inner.weight.local.device).toBe(host);
          await forwardBackward(own, model, 0);
          weights.push(await Promise.all(model.parameters().map((parameter) => gatherParameter(parameter))));
        }
        expect(weights[0]).toEqual(weights[1]);
      });
    });
  });

  test("refuses values that it cannot reach before it takes anything over", async () => {
    await runRanks(1, async (rank) => {
      await withHost(rank, true, async (own, host) => {
        const model = await smallStack(1).to(own.device);
        const options = { mesh: own.mesh, offloadPolicy: { device: host } };
        expect(() => fullyShard(model, options)).toThrow(/"inner\.weight" has its values on backend "cpu"/);
        await forwardBackward(own, model, 0);
        await fullyShard(model, { mesh: own.mesh }).unshard();
      });
    });
  });

  test("says so when a model has to be put on a device first, or the one to keep things is not the host's", async () => {
    await runRanks(1, async (rank) => {
      await withHost(rank, true, async (own, host) => {
        const model = await smallStack(1).to(host);
        fullyShard(model, { mesh: own.mesh, offloadPolicy: { device: host } });
        await expect(forwardBackward(own, model, 0)).rejects.toThrow(StateError);
        const other = fullyShard(smallStack(1), { mesh: own.mesh, offloadPolicy: { device: own.device } });
        await other.to(host);
        await expect(forwardBackward({ ...own, device: host }, other, 0)).rejects.toThrow(ConfigError);
      });
    });
  });
});

import { describe, expect, test } from "bun:test";
import { traceUnits } from "../../../core/engine/trace.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { type FSDPModule, type FullyShardOptions, fullyShard } from "../../../plugins/fsdp2/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { forwardBackward, smallStack } from "../../support/training.ts";

const LAYERS = 2;
const MICROS = 3;

interface Mode {
  readonly name: string;
  readonly reshardAfterForward?: boolean;
  readonly reshardAfterBackward?: boolean;
  /** Units that reduce at the last microbatch only: all, the root, or none. */
  readonly deferred: "all" | "root" | "none";
}

/** Gradients after some microbatches, and how often collectives ran. */
async function accumulate(rank: TestRank, mode: Mode, options: Partial<FullyShardOptions> = {}) {
  const { reshardAfterForward, reshardAfterBackward = true } = mode;
  const mesh = options.mesh ?? rank.mesh;
  const model: Stack = smallStack(LAYERS);
  const how = { ...options, mesh, reshardAfterForward };
  for (const block of model.blocks) fullyShard(block, how);
  const root: Stack & FSDPModule = fullyShard(model, how);
  root.setReshardAfterBackward(reshardAfterBackward);
  await model.to(rank.device);
  const counts = { allGather: 0, reduceScatter: 0, allReduce: 0 };
  traceUnits(model, ({ kind }) => {
    if (kind in counts) counts[kind as keyof typeof counts]++;
  });
  for (let micro = 0; micro < MICROS; micro++) {
    const sync = micro === MICROS - 1;
    if (mode.deferred !== "none") root.setRequiresGradientSync(sync, { recurse: mode.deferred === "all" });
    await forwardBackward(rank, model, micro);
  }
  const gradients = await Promise.all(
    model.parameters().map(async ({ grad }) => Array.from(await grad!.data(), Number)),
  );
  return { gradients, counts };
}

const U = LAYERS + 1;
const MODES: readonly (Mode & { readonly gathers: number; readonly reductions: number })[] = [
  {
    name: "reducing each",
    deferred: "none",
    reshardAfterForward: true,
    gathers: 2 * U * MICROS,
    reductions: U * MICROS,
  },
  {
    name: "resharding always",
    deferred: "all",
    reshardAfterForward: true,
    gathers: 2 * U * MICROS,
    reductions: U,
  },
  {
    name: "resharding after backward",
    deferred: "all",
    reshardAfterForward: false,
    gathers: U * MICROS,
    reductions: U,
  },
  {
    name: "staying gathered",
    deferred: "all",
    reshardAfterForward: false,
    reshardAfterBackward: false,
    gathers: U,
    reductions: U,
  },
  {
    name: "deferring the root alone",
    deferred: "root",
    reshardAfterForward: true,
    gathers: 2 * U * MICROS,
    reductions: LAYERS * MICROS + 1,
  },
];

describe("gradient accumulation", () => {
  for (const worldSize of [1, 2, 3]) {
    test(`gives one sum however it is made, in PyTorch's numbers of collectives, on ${worldSize} ranks`, async () => {
      const all = await Promise.all(
        MODES.map(async (mode) => ({
          mode,
          results: await runRanks(worldSize, (rank) => accumulate(rank, mode)),
        })),
      );
      const reference = all[0]!.results;
      for (const { mode, results } of all) {
        for (const [r, { gradients, counts }] of results.entries()) {
          const { gathers, reductions } = mode;
          const expected = worldSize === 1 ? [0, 0] : [gathers, reductions];
          expect([mode.name, counts.allGather, counts.reduceScatter]).toEqual([mode.name, ...expected]);
          for (const [i, gradient] of gradients.entries()) {
            for (const [j, value] of gradient.entries()) {
              expect(value).toBeCloseTo(reference[r]!.gradients[i]![j]!, 5);
            }
          }
        }
      }
    });
  }

  test("on a mesh of two dims reduces over both as often", async () => {
    const [mode] = MODES.filter(({ name }) => name === "deferring the root alone");
    const results = await runRanks(4, async (rank) =>
      accumulate(rank, mode!, { mesh: await initDeviceMesh(rank.collective, [2, 2]) }),
    );
    for (const { counts } of results) expect(counts.allReduce).toBe(counts.reduceScatter);
  });

  test("adds up in reduceDtype where that is wider than what gradients are computed in", async () => {
    await runRanks(2, async (rank) => {
      const mpPolicy = { paramDtype: "float32", reduceDtype: "float64" } as const;
      const model = fullyShard(smallStack(1), { mesh: rank.mesh, mpPolicy });
      await model.to(rank.device);
      model.setRequiresGradientSync(false);
      const { memory } = rank.device.backend;
      const before = memory.report().current.gradient;
      await forwardBackward(rank, model, 0);
      const numel = model.parameters().reduce((sum, parameter) => sum + parameter.numel, 0);
      expect(memory.report().current.gradient - before).toBe(8 * numel);
      await forwardBackward(rank, model, 1);
      expect(memory.report().current.gradient - before).toBe(8 * numel);
      const dtypes: string[] = [];
      traceUnits(model, (event) => {
        if (event.kind === "reduceScatter") dtypes.push(event.dtype);
      });
      model.setRequiresGradientSync(true);
      await forwardBackward(rank, model, 2);
      expect(dtypes).toEqual(["float64"]);
      expect(model.inner.weight.grad!.dtype).toBe("float32");
    });
  });
});

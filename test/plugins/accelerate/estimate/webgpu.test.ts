import { expect, test } from "bun:test";
import { webgpuBackend } from "../../../../backends/webgpu/mod.ts";
import { registry } from "../../../../mod.ts";
import { type DryRun, dryRun } from "../../../../plugins/accelerate/estimate/dry-run.ts";
import { chooseModel } from "../../../../plugins/accelerate/estimate/model-choice.ts";
import type { Precision } from "../../../../plugins/accelerate/estimate/strategies.ts";
import { describeGpu } from "../../../backends/webgpu/gpu.ts";
import { fixture } from "../../../support/command.ts";
import { type MeasuredRun, measure } from "./measured-run.ts";

describeGpu("a dry run, beside a GPU", () => {
  async function both(precision: Precision): Promise<readonly [MeasuredRun["device"][number], DryRun]> {
    const model = await chooseModel(registry, fixture("llama-tiny/model"));
    const world = { worldSize: 2, ranksPerNode: 2 };
    const workload = { batchSize: 1, seqLen: 8, optimizer: "adamw", momentum: 0 } as const;
    const init = { model, strategy: { name: "", version: "fsdp2" }, world, workload, precision };
    const [first] = await measure(init, (options) => webgpuBackend.create(options));
    return [first!.device.at(-1)!, await dryRun({ registry, ...init }, workload)];
  }

  test("counts to the byte in float32", async () => {
    const [report, { device }] = await both("no");
    expect(report).toEqual(device);
  });

  test("counts all in 16 bits but the two float32 slices that a sum there takes", async () => {
    const [report, { device, calls }] = await both("fp16");
    const slices = calls.flatMap(({ kind, bytes }) => (kind === "reduceScatter" ? bytes : []));
    expect(report.peakState).toBe(device.peakState);
    expect(report.peakTotal).toBeGreaterThanOrEqual(device.peakTotal);
    expect(report.peakTotal - device.peakTotal).toBeLessThanOrEqual(2 * 2 * Math.max(...slices));
  });
});

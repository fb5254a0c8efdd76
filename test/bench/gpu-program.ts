/** What each rank of the GPU benchmark does: GPT-2 124M under FSDP2, timed as a user sees it. */
import type { WebgpuBackend } from "../../backends/webgpu/backend.ts";
import { modulesToWrap, transformerWrap } from "../../core/engine/wrap-policy.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import {
  clipGradNorm,
  type FSDPModule,
  fullyShard,
  type MixedPrecisionPolicy,
  MODEL,
  optim,
  type Rank,
  registry,
} from "../../mod.ts";

/** Arguments of the program. */
export interface GpuBenchArgs {
  readonly preset: string;
  readonly batch: number;
  readonly seqLen: number;
  readonly warmup: number;
  readonly steps: number;
  /** `f16`: gathered, computed and reduced in float16, with loss scaling. `f16 reduce`: only reduced in it. */
  readonly mode: "f32" | "f16 reduce" | "f16";
  /** Free gathered parameters after forward; the default rule when left out. */
  readonly reshardAfterForward?: boolean;
}

/** What a rank measured. */
export interface GpuBenchResult {
  readonly device: string;
  /** Milliseconds of each timed step. */
  readonly steps: readonly number[];
  readonly peakBytes: number;
  /** Highest bytes of each step: equal steps need equally much. */
  readonly peaks: readonly number[];
  readonly losses: readonly number[];
  /** Device milliseconds a step by kernel family, the largest first; empty unless the backend was made with profile=on. */
  readonly families: readonly { readonly family: string; readonly milliseconds: number }[];
}

/**
 * Transfers through host memory take long beside a unit's computing: gather far ahead, and let several reductions run. What
 * stays gathered after forward may as well be asked for at once.
 */
function overlap(root: FSDPModule, units: readonly (AnyModule & FSDPModule)[], kept: boolean): void {
  const ahead = kept ? units.length : 3;
  root.setModulesToForwardPrefetch(units.slice(0, ahead));
  for (const [i, unit] of units.entries()) {
    if (!kept) unit.setModulesToForwardPrefetch(units.slice(i + 1, i + 1 + ahead));
    unit.setModulesToBackwardPrefetch(units.slice(Math.max(0, i - ahead), i).toReversed());
  }
  root.setReduceScatterMaxInputBuffers(kept ? units.length : ahead);
}

/** Trains on random tokens. */
export async function main(rank: Rank, raw: unknown): Promise<GpuBenchResult> {
  const { preset, batch, seqLen, warmup, steps, mode, reshardAfterForward } = raw as GpuBenchArgs;
  const half = mode === "f16";
  const { device, mesh } = rank;
  const family = registry.get(MODEL, "gpt2");
  const noDropout = { embd_pdrop: 0, resid_pdrop: 0, attn_pdrop: 0 };
  const { module, blockClasses, vocabSize } = family.create({ ...family.presets[preset], ...noDropout });
  const mpPolicy: MixedPrecisionPolicy = {
    ...(half ? { paramDtype: "float16" } : {}),
    ...(mode === "f32" ? {} : { reduceDtype: "float16" }),
  };
  const options = { mesh, mpPolicy, reshardAfterForward };
  const blocks = modulesToWrap(module, transformerWrap(module, blockClasses)).toReversed();
  const units = blocks.map((block) => fullyShard(block, options));
  const root = fullyShard(module, options);
  if (rank.worldSize > 1) overlap(root, units, reshardAfterForward === false);
  await root.to(device);
  const optimizer = new optim.AdamW(module.parameters(), { lr: 1e-4 });
  const scaler = half ? new optim.GradScaler() : undefined;
  const ids = Int32Array.from({ length: batch * seqLen }, (_, i) => (i * 7919 + rank.rank * 31) % vocabSize);
  const { memory } = device.backend;
  const times: number[] = [];
  const peaks: number[] = [];
  const losses: number[] = [];
  for (let step = 0; step < warmup + steps; step++) {
    memory.resetPeak();
    if (step === warmup) await (device.backend as WebgpuBackend).kernelTimes();
    await rank.collective.barrier().wait();
    const began = performance.now();
    const scale = scaler?.scale ?? 1;
    device.lossScale = scale;
    let loss: Promise<number> | undefined;
    await device.scope(async () => {
      const x = device.tensor(ids, { shape: [batch, seqLen] });
      const mean = await module.call(x, x);
      loss = mean.item();
      await mean.backward({ gradient: device.full([], scale) });
    });
    let usable = true;
    if (scaler !== undefined) {
      const norm = await clipGradNorm(module.parameters(), Number.POSITIVE_INFINITY, { lossScale: scale });
      usable = Number.isFinite(norm);
      scaler.update(usable);
    }
    if (usable) optimizer.step();
    optimizer.zeroGrad();
    losses.push(await loss!);
    await device.backend.flush();
    if (step >= warmup) times.push(performance.now() - began);
    if (step >= warmup) peaks.push(memory.report().peakTotal);
  }
  const backend = device.backend as WebgpuBackend;
  const families = (await backend.kernelTimes()).map(({ family, milliseconds }) => ({
    family,
    milliseconds: milliseconds / steps,
  }));
  return {
    device: backend.description,
    steps: times,
    peakBytes: Math.max(...peaks),
    peaks,
    losses,
    families,
  };
}

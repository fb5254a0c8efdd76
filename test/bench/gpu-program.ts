/** What each rank of the GPU benchmark does: GPT-2 124M under FSDP2, timed as a user sees it. */
import type { WebgpuBackend } from "../../backends/webgpu/backend.ts";
import { modulesToWrap, transformerWrap } from "../../core/engine/wrap-policy.ts";
import { clipGradNorm, fullyShard, MODEL, optim, type Rank, registry } from "../../mod.ts";

/** Arguments of the program. */
export interface GpuBenchArgs {
  readonly preset: string;
  readonly batch: number;
  readonly seqLen: number;
  readonly warmup: number;
  readonly steps: number;
  /** Gathered, computed and reduced in float16, with loss scaling. */
  readonly half: boolean;
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

/** Trains on random tokens. */
export async function main(rank: Rank, raw: unknown): Promise<GpuBenchResult> {
  const { preset, batch, seqLen, warmup, steps, half, reshardAfterForward } = raw as GpuBenchArgs;
  const { device, mesh } = rank;
  const family = registry.get(MODEL, "gpt2");
  const noDropout = { embd_pdrop: 0, resid_pdrop: 0, attn_pdrop: 0 };
  const { module, blockClasses, vocabSize } = family.create({ ...family.presets[preset], ...noDropout });
  const mpPolicy = half ? ({ paramDtype: "float16", reduceDtype: "float16" } as const) : undefined;
  const options = { mesh, mpPolicy, reshardAfterForward, forwardPrefetch: rank.worldSize > 1 };
  for (const block of modulesToWrap(module, transformerWrap(module, blockClasses)))
    fullyShard(block, options);
  await fullyShard(module, options).to(device);
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

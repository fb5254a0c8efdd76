/** What each rank of the training benchmark does: a GPT step, timed as a whole and by kind of work. */
import type { Backend } from "../../core/contracts/backend.ts";
import type { Collective, Work } from "../../core/contracts/collective.ts";
import type { Kernels } from "../../core/contracts/kernels.ts";
import { modulesToWrap, transformerWrap } from "../../core/engine/wrap-policy.ts";
import { Device, fullyShard, initDeviceMesh, MODEL, optim, type Rank, registry } from "../../mod.ts";

/** Arguments of the program. */
export interface BenchArgs {
  readonly preset: string;
  readonly batch: number;
  readonly seqLen: number;
  /** What parameters are gathered, computed with and gradients reduced in. */
  readonly dtype: "float32" | "bfloat16" | "float16";
  readonly warmup: number;
  readonly steps: number;
}

/** What a rank measured, times in milliseconds. */
export interface BenchResult {
  readonly parameters: number;
  readonly device: string;
  /** Of each timed step. */
  readonly steps: readonly number[];
  /** Per step: matrix products, attention (with its own products), other kernels, waiting for other ranks and copying. */
  readonly shares: {
    readonly matmul: number;
    readonly attention: number;
    readonly other: number;
    readonly communication: number;
  };
  readonly peakBytes: number;
}

type Clock = Record<keyof BenchResult["shares"], number>;

/** The backend with every kernel call timed. Meant for devices that compute while the call runs. */
function timed(backend: Backend, clock: Clock): Backend {
  const kernels: Record<string, unknown> = {};
  for (const name of Object.keys(backend.kernels) as (keyof Kernels)[]) {
    const kernel = backend.kernels[name] as (...args: unknown[]) => void;
    const kind = name === "matmul" ? "matmul" : name.startsWith("attention") ? "attention" : "other";
    kernels[name] = (...args: unknown[]) => {
      const began = performance.now();
      kernel.apply(backend.kernels, args);
      clock[kind] += performance.now() - began;
    };
  }
  return new Proxy(backend, {
    get: (target, key) => {
      if (key === "kernels") return kernels;
      const value: unknown = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** The collective with every wait timed. */
function timedCollective(inner: Collective, clock: Clock): Collective {
  const watch = (work: Work): Work => ({
    wait: async () => {
      const began = performance.now();
      await work.wait();
      clock.communication += performance.now() - began;
    },
  });
  return {
    name: inner.name,
    rank: inner.rank,
    size: inner.size,
    allGather: (output, input) => watch(inner.allGather(output, input)),
    reduceScatter: (output, input, op, dtype) => watch(inner.reduceScatter(output, input, op, dtype)),
    allReduce: (data, op, dtype) => watch(inner.allReduce(data, op, dtype)),
    broadcast: (data, root) => watch(inner.broadcast(data, root)),
    barrier: () => watch(inner.barrier()),
    share: (input) => inner.share(input),
    window: (byteLength) => inner.window(byteLength),
    split: (color, key) => inner.split(color, key),
    abort: (reason) => inner.abort(reason),
    close: () => inner.close(),
  };
}

/** Trains on random tokens and returns this rank's figures. */
export async function main(rank: Rank, raw: unknown): Promise<BenchResult> {
  const args = raw as BenchArgs;
  const clock: Clock = { matmul: 0, attention: 0, other: 0, communication: 0 };
  const device = new Device(timed(rank.device.backend, clock), { seed: 0, rank: rank.rank });
  const mesh = await initDeviceMesh(timedCollective(rank.collective, clock));
  const family = registry.get(MODEL, "gpt2");
  const { module, blockClasses, vocabSize } = family.create(family.presets[args.preset]);
  const { batch, seqLen, dtype } = args;
  const mpPolicy = dtype === "float32" ? {} : { paramDtype: dtype, reduceDtype: dtype };
  for (const block of modulesToWrap(module, transformerWrap(module, blockClasses)))
    fullyShard(block, { mesh, mpPolicy });
  await fullyShard(module, { mesh, mpPolicy }).to(device);
  const optimizer = new optim.AdamW(module.parameters(), { lr: 1e-4 });
  const ids = Int32Array.from({ length: batch * seqLen }, (_, i) => (i * 7919 + rank.rank) % vocabSize);
  const times: number[] = [];
  for (let step = 0; step < args.warmup + args.steps; step++) {
    if (step === args.warmup) for (const kind of Object.keys(clock) as (keyof Clock)[]) clock[kind] = 0;
    await rank.collective.barrier().wait();
    const began = performance.now();
    await device.scope(async () => {
      const x = device.tensor(ids, { shape: [batch, seqLen] });
      const loss = await module.call(x, x);
      await loss.backward();
    });
    optimizer.step();
    optimizer.zeroGrad();
    await device.backend.flush();
    if (step >= args.warmup) times.push(performance.now() - began);
  }
  const share = (kind: keyof Clock) => clock[kind] / args.steps;
  return {
    parameters: module.parameters().reduce((sum, parameter) => sum + parameter.numel, 0),
    device: device.backend.description,
    steps: times,
    shares: {
      matmul: share("matmul"),
      attention: share("attention"),
      other: share("other"),
      communication: share("communication"),
    },
    peakBytes: device.backend.memory.report().peakTotal,
  };
}

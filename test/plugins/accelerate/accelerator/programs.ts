/** What the ranks of the accelerator's tests run: each function is a rank's whole program. */
import {
  type AcceleratedOptimizer,
  type AcceleratedScheduler,
  Accelerator,
  DataLoader,
  FullyShardedDataParallel,
  FullyShardedDataParallelPlugin,
  fullyShard,
  gatherParameter,
  nn,
  ops,
  optim,
  type PreparedDataLoader,
  type Rank,
  type Tensor,
  traceUnits,
} from "../../../../mod.ts";

/** A sample: a row, and what is to be made of it. */
export interface Sample {
  readonly x: readonly number[];
  readonly y: readonly number[];
}

/** Samples that depend on their number alone. */
export function samples(count: number): Sample[] {
  return Array.from({ length: count }, (_, i) => {
    const x = [Math.sin(i + 1), Math.cos(3 * i), Math.sin(i * i), Math.cos(i / 2)];
    return { x, y: [x[0]! * x[1]! + x[3]!] };
  });
}

/** Small, with a unit below the root and extents that no world shares evenly. */
export class Net extends nn.Module<[x: Tensor], Tensor> {
  readonly up: nn.Linear = new nn.Linear(4, 7);
  readonly dropout: nn.Dropout;
  readonly down: nn.Linear = new nn.Linear(7, 1);

  constructor(dropout = 0) {
    super();
    this.dropout = new nn.Dropout(dropout);
  }

  override async forward(x: Tensor): Promise<Tensor> {
    return await this.down.call(await this.dropout.call(ops.gelu(await this.up.call(x))));
  }
}

/** How a run differs from others. */
export interface Run {
  readonly version?: 1 | 2;
  readonly plugin?: ConstructorParameters<typeof FullyShardedDataParallelPlugin>[0];
  readonly accumulation?: number;
  readonly mixedPrecision?: "no" | "fp16" | "bf16";
  readonly projectDir?: string;
  readonly totalLimit?: number;
  readonly samples?: number;
  /** Of all ranks together. */
  readonly batchSize?: number;
  readonly shuffle?: boolean;
  readonly dropout?: number;
  readonly epochs?: number;
  readonly clip?: number;
  /** Saves after so many batches, and goes on. */
  readonly saveAfter?: number;
  /** Where to go on from. */
  readonly resume?: string;
}

/** What a run gives. */
export interface Outcome {
  /** Means over ranks, a batch each. */
  readonly losses: readonly number[];
  readonly norms: readonly (number | undefined)[];
  readonly lrs: readonly number[];
  readonly weights: Readonly<Record<string, readonly number[]>>;
  /** Reductions of gradients that this rank took part in. */
  readonly reductions: number;
  readonly saved: string | undefined;
  /** Bytes of activations that outlived the run. */
  readonly left: number;
}

/** A run's objects. */
export interface PreparedRun {
  readonly accelerator: Accelerator;
  readonly scheduler: AcceleratedScheduler;
  readonly loader: PreparedDataLoader<{ x: Tensor; y: Tensor }>;
  readonly optimizer: AcceleratedOptimizer;
  readonly model: Net;
}

/** Everything of a run, made and prepared. */
export async function prepared(run: Run = {}): Promise<PreparedRun> {
  const accelerator = await Accelerator.create({
    fsdpPlugin: new FullyShardedDataParallelPlugin({
      fsdpVersion: run.version ?? 2,
      autoWrapPolicy: (_, name) => name === "up",
      ...run.plugin,
    }),
    gradientAccumulationSteps: run.accumulation,
    mixedPrecision: run.mixedPrecision,
    projectDir: run.projectDir,
    totalLimit: run.totalLimit,
    splitBatches: true,
  });
  const net = new Net(run.dropout);
  const adamw = new optim.AdamW(net.parameters(), { lr: 0.05 });
  const schedule = optim.warmupCosine({ warmupSteps: 2, totalSteps: 40 });
  const data = new DataLoader(samples(run.samples ?? 24), {
    batchSize: run.batchSize ?? 6,
    shuffle: run.shuffle ?? false,
  });
  const [scheduler, loader, optimizer, model] = await accelerator.prepare(
    new optim.LRScheduler(adamw, schedule),
    data,
    adamw,
    net,
  );
  return { accelerator, scheduler, loader, optimizer, model };
}

/** Whole weights by name. */
export async function weightsOf(model: nn.Module<[x: Tensor], Tensor>): Promise<Record<string, number[]>> {
  const weights: Record<string, number[]> = {};
  for (const [name, parameter] of model.namedParameters()) {
    weights[name] = Array.from((await gatherParameter(parameter)) as Float32Array);
  }
  return weights;
}

/** Trains. */
export async function train(_: unknown, run: Run): Promise<Outcome> {
  const { accelerator, scheduler, loader, optimizer, model } = await prepared(run);
  const losses: number[] = [];
  const norms: (number | undefined)[] = [];
  const lrs: number[] = [];
  let reductions = 0;
  let saved: string | undefined;
  const end = traceUnits(model, ({ kind }) => {
    if (kind === "reduceScatter") reductions++;
  });
  if (run.resume !== undefined) await accelerator.loadState(run.resume);
  while (loader.epoch < (run.epochs ?? 2)) {
    for await (const { x, y } of loader) {
      await accelerator.accumulate(model, async () => {
        const loss = ops.mseLoss(await model.call(x), y);
        losses.push(await accelerator.reduce(await loss.item(), "mean"));
        await accelerator.backward(loss);
        norms.push(await accelerator.clipGradNorm(model.parameters(), run.clip ?? 0.5));
        await optimizer.step();
        scheduler.step();
        optimizer.zeroGrad();
      });
      lrs.push(scheduler.lastLR[0]!);
      if (losses.length === run.saveAfter) saved = await accelerator.saveState();
    }
  }
  end();
  const weights = await weightsOf(model);
  const left = accelerator.device.backend.memory.report().current.activation;
  await accelerator.endTraining();
  return { losses, norms, lrs, weights, reductions, saved, left };
}

/** Trains in float16, in which the gradients of one rank's third batch overflow. */
export async function overflow({ rank, worldSize }: Rank): Promise<unknown> {
  const { accelerator, scheduler, loader, optimizer, model } = await prepared({ mixedPrecision: "fp16" });
  const steps: unknown[] = [];
  let i = 0;
  for await (const { x, y } of loader) {
    const before = await weightsOf(model);
    const lr = scheduler.lastLR[0];
    await accelerator.device.scope(async () => {
      const prediction = await model.call(x);
      const loss = ops.mseLoss(prediction, y);
      const huge = i === 2 && rank === worldSize - 1;
      steps.push({ dtype: prediction.dtype, finite: Number.isFinite(await loss.item()) });
      await accelerator.backward(ops.mul(loss, accelerator.device.full([], huge ? 1e9 : 1e-2)));
    });
    await optimizer.step();
    scheduler.step();
    const changed = JSON.stringify(await weightsOf(model)) !== JSON.stringify(before);
    const { lossScale } = accelerator.device;
    steps.push([accelerator.optimizerStepWasSkipped, changed, scheduler.lastLR[0] !== lr, lossScale]);
    optimizer.zeroGrad();
    i++;
  }
  await accelerator.endTraining();
  return steps;
}

/** Gradients after clipping in several ways, and norms. */
export async function clip(_: Rank, run: Run): Promise<unknown> {
  const { accelerator, loader, optimizer, model } = await prepared({ ...run, samples: 6 });
  const gradients = async (change: () => Promise<unknown>) => {
    for await (const { x, y } of loader) {
      await accelerator.device.scope(async () => {
        const loss = ops.mseLoss(await model.call(x), y);
        // Within the range of float16 with the first loss scale.
        await accelerator.backward(ops.mul(loss, accelerator.device.full([], 1e-2)));
      });
      break;
    }
    const norm = await change();
    const all: number[] = [];
    for (const { grad } of model.parameters()) {
      if (grad !== undefined) all.push(...Array.from((await grad.data()) as Float32Array));
    }
    optimizer.zeroGrad();
    const max = Float64Array.of(all.reduce((a, b) => Math.max(a, Math.abs(b)), 0));
    await accelerator.collective.allReduce(max, "max", "float64").wait();
    const squares = await accelerator.reduce(all.reduce((sum, g) => sum + g * g, 0));
    return { norm, max: max[0]!, after: Math.sqrt(squares) };
  };
  const parameters = model.parameters();
  const whole = () => accelerator.clipGradNorm(parameters, 1e-4);
  return {
    raw: await gradients(() => accelerator.unscaleGradients()),
    whole: await gradients(whole),
    part: await gradients(() => accelerator.clipGradNorm(model.up.parameters(), 1e9)),
    infinity: await gradients(() => accelerator.clipGradNorm(parameters, 1e9, Number.POSITIVE_INFINITY)),
    value: await gradients(() => accelerator.clipGradValue(parameters, 1e-3)),
    twice: await gradients(async () => {
      await accelerator.clipGradNorm(model.up.parameters(), 1e9);
      return await whole();
    }),
  };
}

/** Uses an optimizer without waiting for its step. */
export async function hasty(): Promise<unknown> {
  const said: unknown[] = [];
  for (const mixedPrecision of ["no", "fp16"] as const) {
    const { accelerator, loader, optimizer, model } = await prepared({ mixedPrecision });
    for await (const { x, y } of loader) {
      await accelerator.device.scope(async () => {
        await accelerator.backward(ops.mseLoss(await model.call(x), y));
      });
      const step = optimizer.step();
      try {
        optimizer.zeroGrad();
        said.push("done");
      } catch (error) {
        said.push((error as Error).message);
      }
      await step;
      optimizer.zeroGrad();
      break;
    }
    await accelerator.endTraining();
  }
  return said;
}

/** Models that the script has sharded by itself. */
export async function shardedBefore({ mesh }: Rank): Promise<unknown> {
  await using accelerator = await Accelerator.create();
  const weights: unknown[] = [];
  for (const shard of [
    (net: Net) => fullyShard(net, { mesh }),
    (net: Net) => new FullyShardedDataParallel(net, { mesh, useOrigParams: true }),
    (net: Net) => net,
  ]) {
    const [model] = await accelerator.prepare(shard(new Net()));
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const [sgd] = await accelerator.prepare(optimizer);
    await accelerator.accumulate(model, async () => {
      await accelerator.backward(ops.sum(await model.call(accelerator.device.ones([2, 4]))));
      await sgd.step();
      sgd.zeroGrad();
    });
    weights.push(Object.values(await weightsOf(model)));
  }
  return weights;
}

/** Norms of gradients of two losses: reduced each, together after one was not, and added up. */
export async function unsynced(): Promise<unknown> {
  const { accelerator, model, optimizer } = await prepared();
  const { device } = accelerator;
  let reductions = 0;
  traceUnits(model, ({ kind }) => {
    if (kind === "reduceScatter") reductions++;
  });
  const backward = async (scale: number) => {
    await device.scope(async () => {
      const out = await model.call(ops.mul(device.ones([2, 4]), device.full([], scale)));
      await accelerator.backward(ops.mean(out));
    });
  };
  const finish = async () => {
    const norm = await accelerator.clipGradNorm(model.parameters(), 1e9);
    optimizer.zeroGrad();
    const result = [norm, reductions];
    reductions = 0;
    return result;
  };
  await backward(1);
  await backward(2);
  const each = await finish();
  await accelerator.noSync(model, () => backward(1));
  const within = reductions;
  await backward(2);
  const together = await finish();
  const dict = await accelerator.getStateDict(model, { rank0Only: false });
  const whole = Object.entries(dict).map(([name, { data }]) => [name, Array.from(data, Number)]);
  const same = JSON.stringify(Object.fromEntries(whole)) === JSON.stringify(await weightsOf(model));
  await accelerator.endTraining();
  return { each, within, together, same };
}

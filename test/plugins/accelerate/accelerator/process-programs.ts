/** What ranks run in the tests of what ranks tell each other: each function is a rank's whole program. */
import {
  Accelerator,
  type AcceleratorOptions,
  DataLoader,
  ops,
  optim,
  type Rank,
  ShapeError,
  type Tensor,
} from "../../../../mod.ts";
import { Net } from "./programs.ts";

/** What ranks tell each other. */
export async function exchanges({ rank }: Rank): Promise<unknown> {
  await using accelerator = await Accelerator.create();
  const { device } = accelerator;
  const list = async (tensor: Tensor) => [
    tensor.dtype,
    tensor.shape,
    Array.from(await tensor.data(), Number),
  ];
  const own = device.tensor([
    [rank, 10 * rank],
    [-rank, 1],
  ]);
  const gathered = await accelerator.gather({ rows: own, ids: [device.tensor(Int32Array.of(rank))] });
  const order: string[] = [];
  await accelerator.mainProcessFirst(() => void order.push("in turn"));
  const wrong = async (call: () => Promise<unknown>) => await call().catch((error: Error) => error.message);
  return {
    rows: await list(gathered.rows),
    ids: await list(gathered.ids[0]!),
    scalar: await list(await accelerator.gather(device.tensor(rank + 0.5))),
    sum: await list(await accelerator.reduce(own)),
    mean: await list(await accelerator.reduce(own, "mean", 2)),
    unchanged: (await list(own))[2],
    numbers: await accelerator.reduce({ a: rank, b: [1] }),
    from: await accelerator.broadcast([rank, 2 * rank], 1),
    sent: await list(await accelerator.broadcast(own, accelerator.numProcesses - 1)),
    main: accelerator.onMainProcess((x: number) => x + 1)(1) ?? "not here",
    local: accelerator.onLocalMainProcess(() => "here")() ?? "not here",
    place: [accelerator.processIndex, accelerator.localProcessIndex, accelerator.numProcesses],
    is: [accelerator.isMainProcess, accelerator.isLocalMainProcess, accelerator.isLastProcess],
    order,
    refused: [
      await wrong(() => accelerator.gather("text")),
      await wrong(() => accelerator.reduce([null])),
      await wrong(() => accelerator.gather(3)),
    ],
  };
}

/** Who does what first. */
export async function turns({ report, rank }: Rank, how: "main" | "fails"): Promise<unknown> {
  await using accelerator = await Accelerator.create();
  try {
    return await accelerator.mainProcessFirst(async () => {
      report(`rank ${rank} begins`);
      // The others would overtake it.
      if (rank === 0) await new Promise((resolve) => setTimeout(resolve, 20));
      report(`rank ${rank} ends`);
      if (how === "fails" && rank === 0) throw new ShapeError("no");
      return rank;
    });
  } catch (error) {
    return (error as Error).message;
  }
}

/** Metrics over whole epochs, at every number of ranks over the samples that there are. */
export async function metrics(_: Rank, count: number): Promise<unknown> {
  await using accelerator = await Accelerator.create();
  const data = Array.from({ length: count }, (_, i) => ({ id: Int32Array.of(i), value: i }));
  const [loader, stream] = await accelerator.prepare(
    new DataLoader(data, { batchSize: 4 }),
    new DataLoader(new Set(data), { batchSize: 3 }),
  );
  const seen: number[][] = [];
  for (const each of [loader, stream]) {
    const ids: number[] = [];
    for await (const { id, value } of each) {
      const all = await accelerator.gatherForMetrics({ id, value });
      expectEqual(Array.from((await all.value.data()) as Float32Array), await all.id.data());
      // One number a rank is no row a sample.
      const means = await accelerator.gatherForMetrics(ops.mean(value));
      if (means.shape[0] !== accelerator.numProcesses) throw new ShapeError("a mean was dropped");
      ids.push(...Array.from((await all.id.data()) as Int32Array));
    }
    seen.push(ids);
  }
  return seen;
}

function expectEqual(a: readonly number[], b: ArrayLike<number | bigint>): void {
  if (a.some((value, i) => value !== Number(b[i])) || a.length !== b.length)
    throw new ShapeError("rows differ");
}

/** Logs, as the first run or a later one. */
export async function logs(
  _: Rank,
  { path, projectDir }: { path: string; projectDir: string },
): Promise<unknown> {
  const told: unknown[] = [];
  const tracker = {
    log: (values: unknown, step: number | undefined) => void told.push([values, step ?? null]),
    finish: () => void told.push("finished"),
  };
  const accelerator = await Accelerator.create({ logWith: [path, tracker], projectDir });
  await accelerator.prepare(new Net());
  await accelerator.log({ loss: 0.5, note: "first" }, { step: 1 });
  await accelerator.saveState();
  await accelerator.log({ loss: Number.NaN });
  await accelerator.endTraining();
  const again = await Accelerator.create({ logWith: path, projectDir });
  await again.prepare(new Net());
  await again.loadState();
  await again.log({ loss: 0.25 }, { step: 2 });
  await again.endTraining();
  return told;
}

/** Uses that are refused. */
export async function misuse({ rank }: Rank): Promise<unknown> {
  const said: Record<string, string> = {};
  const wrong = async (what: string, call: () => unknown) => {
    try {
      await call();
      said[what] = "nothing";
    } catch (error) {
      said[what] = `${(error as Error).name}: ${(error as Error).message}`;
    }
  };
  const create = (options: unknown) => Accelerator.create(options as AcceleratorOptions);
  await wrong("backend", () => create({ backend: "tpu" }));
  await wrong("precision", () => create({ mixedPrecision: "fp64" }));
  await wrong("accumulation", () => create({ gradientAccumulationSteps: 0 }));
  await wrong("limit", () => create({ totalLimit: 0 }));
  await wrong("seed", () => create({ seed: -1 }));
  await wrong("plugin", () => create({ fsdpPlugin: { fsdpVersion: 2 } }));
  await using accelerator = await create({ splitBatches: true, gradientAccumulationSteps: 2 });
  const net = new Net();
  const adamw = new optim.AdamW(net.parameters(), { lr: 0.1 });
  await wrong("something else", () => accelerator.prepare(net, "model" as never));
  await wrong("optimizer alone", () => accelerator.prepare(adamw));
  await wrong("split", () => accelerator.prepare(new DataLoader([1], { batchSize: 3 })));
  await wrong("unprepared", () => accelerator.accumulate(net, () => {}));
  const [model, optimizer] = await accelerator.prepare(net, adamw);
  const [sameModel, sameOptimizer, other] = await accelerator.prepare(model, adamw, optimizer);
  said["prepared twice"] = String(sameModel === net && sameOptimizer === optimizer && other === optimizer);
  said.unwrapped = String(accelerator.unwrapModel(model) === net);
  await wrong("nested", () => accelerator.accumulate(model, () => accelerator.accumulate(model, () => {})));
  await wrong("after it", () => accelerator.accumulate(model, () => {}));
  await wrong("loss of two", () =>
    accelerator.accumulate(model, async () => {
      const { device } = accelerator;
      await accelerator.backward(await model.call(device.ones([2, 4])));
    }),
  );
  await wrong("after that", () => accelerator.accumulate(model, () => {}));
  await wrong("clip", () => accelerator.clipGradNorm(model.parameters(), -1));
  await wrong("clip value", () => accelerator.clipGradValue(model.parameters(), 0));
  await wrong("register", () => accelerator.registerForCheckpointing({ values: () => 1 } as never));
  const dict = await accelerator.getStateDict(model);
  said.dict = String(Object.keys(dict).length);
  said.everywhere = String(Object.keys(await accelerator.getStateDict(model, { rank0Only: false })).length);
  accelerator.freeMemory();
  said.freed = String(accelerator.device.backend.memory.report().currentTotal);
  await wrong("freed model", () => accelerator.accumulate(model, () => {}));
  return { rank, ...said };
}

/** What the launcher was told, and what code says instead. */
export async function told(): Promise<unknown> {
  const seen: unknown[] = [];
  for (const options of [{}, { mixedPrecision: "no", gradientAccumulationSteps: 1 }] as const) {
    await using accelerator = await Accelerator.create(options);
    const { mixedPrecision, gradientAccumulationSteps, fsdpPlugin } = accelerator;
    seen.push([mixedPrecision, gradientAccumulationSteps, fsdpPlugin.config.version]);
  }
  return seen;
}

/** What ranks run in the tests of checkpoints: each function is a rank's whole program. */
import { Accelerator, ops, optim, type Rank } from "../../../../mod.ts";
import { Net, prepared, type Run, weightsOf } from "./programs.ts";

/** Prepares, loads and saves as it is told, and gives what went wrong. */
export async function checkpoints(
  _: Rank,
  { steps, ...run }: Run & { readonly steps: readonly CheckpointStep[] },
): Promise<unknown[]> {
  const made = await prepared(run);
  const { accelerator } = made;
  const seen: unknown[] = [];
  const counter = { count: 1 };
  const custom = {
    values: () => counter.count,
    loadValues: (values: unknown) => {
      counter.count = Number(values);
    },
  };
  const doing: Readonly<Record<CheckpointStep["do"], (at?: string, size?: number | string) => unknown>> = {
    model: (at, size) =>
      accelerator.saveModel(made.model, at!, size === undefined ? {} : { maxShardSize: size }),
    save: (at) => accelerator.saveState(at),
    load: (at) => accelerator.loadState(at),
    register: () => accelerator.registerForCheckpointing(custom),
    count: () => {
      counter.count++;
    },
    counted: () => counter.count,
    optimizer: async () => {
      await accelerator.prepare(new optim.SGD(made.model.up.parameters(), { lr: 0.1 }));
    },
    half: async () => {
      const { x, y } = { x: accelerator.device.ones([1, 4]), y: accelerator.device.ones([1, 1]) };
      await accelerator.accumulate(made.model, async () => {
        await accelerator.backward(ops.mseLoss(await made.model.call(x), y));
      });
    },
    weights: () => weightsOf(made.model),
  };
  for (const step of steps) {
    try {
      seen.push((await doing[step.do](step.at, step.size)) ?? null);
    } catch (error) {
      seen.push(error instanceof Error ? `${error.name}: ${error.message}` : error);
    }
  }
  await accelerator.endTraining();
  return seen;
}

/** Something to do in `checkpoints`. */
export interface CheckpointStep {
  readonly do:
    | "model"
    | "save"
    | "load"
    | "register"
    | "count"
    | "counted"
    | "optimizer"
    | "half"
    | "weights";
  readonly at?: string;
  /** Of the largest file of a model. */
  readonly size?: number | string;
}

/** Two models with an optimizer each and one for both, saved, spoilt and loaded; where a device of its own is wanted. */
export async function several(launched: Rank, projectDir: string): Promise<unknown> {
  await using accelerator = await Accelerator.create({
    backend: "cpu",
    backendSettings: { matmul: "plain" },
    projectDir,
  });
  const nets = [new Net(), new Net()] as const;
  // One that has values already.
  await nets[1].to(accelerator.device);
  const parameters = nets.flatMap((net) => net.parameters());
  const [first, second, joint, own] = await accelerator.prepare(
    ...nets,
    new optim.SGD(parameters, { lr: 0.1, momentum: 0.5 }),
    new optim.AdamW(nets[1].parameters(), { lr: 0.01 }),
  );
  const step = async () => {
    await accelerator.accumulate([first, second], async () => {
      const x = accelerator.device.ones([2, 4]);
      await accelerator.backward(ops.sum(ops.mul(await first.call(x), await second.call(x))));
      await joint.step();
      await own.step();
      joint.zeroGrad();
      own.zeroGrad();
    });
    return [await weightsOf(first), await weightsOf(second)];
  };
  const start = [await weightsOf(first), await weightsOf(second)];
  await step();
  const place = await accelerator.saveState();
  const after = await step();
  await step();
  await accelerator.loadState(place);
  const again = await step();
  return {
    start: JSON.stringify(start[0]) === JSON.stringify(start[1]),
    same: JSON.stringify(after) === JSON.stringify(again),
    moved: JSON.stringify(after) !== JSON.stringify(start),
    ownDevice: accelerator.device !== launched.device,
  };
}

/** Saves a model twice of which a part does not learn. */
export async function frozen(_: Rank, projectDir: string): Promise<unknown> {
  await using accelerator = await Accelerator.create({ projectDir });
  const net = new Net();
  for (const parameter of net.up.parameters()) parameter.requiresGrad = false;
  await accelerator.prepare(net);
  return [await accelerator.saveState(), await accelerator.saveState()];
}

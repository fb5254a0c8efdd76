/** State dicts of a sharded model and its optimizer: taken, given to another model, and trained on with. */
import { getModelStateDict, setModelStateDict } from "../../../../core/engine/model-state-dict.ts";
import {
  getOptimizerStateDict,
  setOptimizerStateDict,
} from "../../../../core/engine/optimizer-state-dict.ts";
import type { ConformanceRank } from "../rank.ts";
import { type Model, type ModelSpec, modelOf, pass, type ShardSpec, shard } from "./models.ts";
import { optimizerFor } from "./training.ts";

/** Whose state goes where, and how. */
export interface StateSpec {
  readonly model: ModelSpec;
  readonly from: ShardSpec;
  readonly to: ShardSpec;
  /** The boxes that lie on a rank; whole tensors on every rank; or whole tensors on the first rank alone. */
  readonly how: "sharded" | "full" | "rank0";
}

type Named = Readonly<Record<string, readonly number[]>>;

/** What was found. */
export interface StateFound {
  /** Collectives that taking the boxes that lie here needed. */
  readonly calls: readonly string[];
  /** How many whole tensors this rank was given when the first alone is. */
  readonly onThisRank: number;
  /** Whole weights after the state was taken, and what a dict of boxes that was taken before an update shows after it. */
  readonly saved: Named;
  readonly shown: Named;
  readonly updated: Named;
  /** Whole weights of the other model after loading, and those of both after one more step. */
  readonly loaded: Named;
  readonly next: readonly [Named, Named];
}

async function made(rank: ConformanceRank, spec: ModelSpec, sharding: ShardSpec, seed: number) {
  rank.device.seed = seed;
  const model = modelOf(spec);
  await shard(rank, model, sharding);
  await model.to(rank.device);
  return { model, optimizer: optimizerFor(model) };
}

async function whole(model: Model): Promise<Named> {
  const dict = await getModelStateDict(model, { fullStateDict: true });
  return Object.fromEntries(Object.entries(dict).map(([name, { data }]) => [name, Array.from(data, Number)]));
}

/** Takes one model's state after a step and gives it to another, which had other values. */
export async function exchangeState(rank: ConformanceRank, spec: StateSpec): Promise<StateFound> {
  const one = await made(rank, spec.model, spec.from, 7);
  const two = await made(rank, spec.model, spec.to, 99);
  const step = async ({ model, optimizer }: typeof one, index: number): Promise<void> => {
    await pass(rank, model, spec.model, index);
    optimizer.step();
    optimizer.zeroGrad();
  };
  const cached = await getModelStateDict(one.model);
  await step(one, 0);
  const shown: Record<string, readonly number[]> = {};
  const updated: Record<string, readonly number[]> = {};
  const named = new Map(one.model.namedParameters());
  for (const [name, { pieces }] of Object.entries(cached)) {
    shown[name] = [];
    for (const piece of pieces) shown[name] = [...shown[name], ...Array.from(await piece.read(), Number)];
    updated[name] = Array.from(await named.get(name)!.local.data(), Number);
  }
  rank.calls.length = 0;
  const boxes = await getModelStateDict(one.model);
  const calls = rank.calls.splice(0);
  const first = await getModelStateDict(one.model, { fullStateDict: true, cpuOffload: true });
  const saved = await whole(one.model);
  if (spec.how === "sharded") {
    await setModelStateDict(two.model, boxes);
    await setOptimizerStateDict(
      two.model,
      two.optimizer,
      await getOptimizerStateDict(one.model, one.optimizer),
    );
  } else {
    const cpuOffload = spec.how === "rank0";
    const options = { fullStateDict: true, broadcastFromRank0: cpuOffload } as const;
    const model = await getModelStateDict(one.model, { fullStateDict: true, cpuOffload });
    const optimizer = await getOptimizerStateDict(one.model, one.optimizer, {
      fullStateDict: true,
      cpuOffload,
    });
    await setModelStateDict(two.model, model, options);
    await setOptimizerStateDict(two.model, two.optimizer, optimizer, options);
  }
  const loaded = await whole(two.model);
  for (const each of [one, two]) await step(each, 1);
  const next = [await whole(one.model), await whole(two.model)] as const;
  for (const { model, optimizer } of [one, two]) {
    optimizer.dispose();
    model.dispose();
  }
  rank.device.seed = 7;
  return { calls, onThisRank: Object.keys(first).length, saved, shown, updated, loaded, next };
}

/** What the groups of a sharded stack do in a step, and what its ranks call. */
import { traceUnits } from "../../../../core/engine/trace.ts";
import type { UnitEvent } from "../../../../core/engine/unit-events.ts";
import type { ConformanceRank } from "../rank.ts";
import { lossOf, type ModelSpec, modelOf, type ShardedModel, type ShardSpec, shard } from "./models.ts";

/** What is done to the model beside training it. */
export interface EventsSpec {
  readonly sharding: ShardSpec;
  readonly layers: number;
  /** `setReshardAfterForward` on the root, before the first step. */
  readonly reshardAfterForward?: { readonly value: boolean; readonly recurse: boolean };
  /** Lists of groups that each block gathers ahead: by their distance from it. */
  readonly forwardAhead?: readonly number[];
  readonly backwardAhead?: readonly number[];
  /** All groups are freed by hand between forward and backward. */
  readonly reshardBetween?: boolean;
  /** A pattern for the names of parameters that do not learn. */
  readonly frozen?: string;
  /** On the root: what gradients are divided by. On all groups: whether collectives only sum. */
  readonly divideFactor?: number;
  readonly forceSum?: boolean;
  /** Forward passes before the one backward pass. Default 1. */
  readonly forwards?: number;
  readonly steps?: number;
}

/** What happened in one pass. */
export interface PassEvents {
  /** U unshard, R reshard, P post-backward; `r` is the root, numbers are blocks, joined where they are one group. */
  readonly words: string;
  readonly collectives: readonly Extract<UnitEvent, { readonly numel: number }>[];
  /** What was called on the group of all ranks. */
  readonly calls: readonly string[];
}

/** What happened in each step: in forward and in backward. */
export async function events(
  rank: ConformanceRank,
  spec: EventsSpec,
): Promise<readonly (readonly [forward: PassEvents, backward: PassEvents])[]> {
  const model: ModelSpec = { kind: "stack", layers: spec.layers };
  const sharded = await shard(rank, modelOf(model), spec.sharding);
  set(sharded, spec);
  await sharded.model.to(rank.device);
  for (const [name, parameter] of sharded.model.namedParameters()) {
    parameter.requiresGrad = spec.frozen === undefined || !new RegExp(spec.frozen).test(name);
  }
  let heard: UnitEvent[] = [];
  traceUnits(sharded.model, (event) => heard.push(event));
  const taken = (): PassEvents => {
    const part = { words: wordsOf(heard), collectives: heard.filter((event) => "numel" in event) };
    heard = [];
    return { ...part, calls: rank.calls.splice(0) };
  };
  const steps: (readonly [PassEvents, PassEvents])[] = [];
  for (let step = 0; step < (spec.steps ?? 1); step++) {
    taken();
    await rank.device.scope(async () => {
      const losses = [await lossOf(rank, sharded.model, model, step)];
      for (let i = 1; i < (spec.forwards ?? 1); i++) {
        losses.push(await lossOf(rank, sharded.model, model, step + i));
      }
      if (spec.reshardBetween === true) {
        for (const group of [sharded.model, ...sharded.groups]) await group.reshard();
      }
      const forward = taken();
      const last = losses.pop()!;
      for (const loss of losses) await loss.backward();
      if (losses.length > 0) taken();
      await last.backward();
      steps.push([forward, taken()]);
    });
  }
  sharded.model.dispose();
  return steps;
}

function set({ model, groups }: ShardedModel, spec: EventsSpec): void {
  const { reshardAfterForward } = spec;
  if (reshardAfterForward !== undefined) {
    model.setReshardAfterForward(reshardAfterForward.value, { recurse: reshardAfterForward.recurse });
  }
  if (spec.divideFactor !== undefined) model.setGradientDivideFactor(spec.divideFactor);
  if (spec.forceSum === true)
    for (const group of [model, ...groups]) group.setForceSumReductionForComms(true);
  for (const [i, group] of groups.entries()) {
    const at = (distances: readonly number[]) => distances.flatMap((distance) => groups[i + distance] ?? []);
    if (spec.forwardAhead !== undefined) group.setModulesToForwardPrefetch(at(spec.forwardAhead));
    if (spec.backwardAhead !== undefined) group.setModulesToBackwardPrefetch(at(spec.backwardAhead));
  }
}

const LETTERS: Readonly<Record<string, string>> = { unshard: "U", reshard: "R", postBackward: "P" };

function wordsOf(heard: readonly UnitEvent[]): string {
  const words = heard.flatMap(({ kind, unit }) => {
    const letter = LETTERS[kind];
    return letter === undefined ? [] : [letter + (unit === "" ? "r" : unit.replaceAll(/blocks\.|,/g, ""))];
  });
  return words.join(" ");
}

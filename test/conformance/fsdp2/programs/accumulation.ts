/** Gradients that add up over microbatches: reduced at each, at the last, or by some groups only. */
import { gatherLike } from "../../../../core/engine/full-tensor.ts";
import { traceUnits } from "../../../../core/engine/trace.ts";
import type { ConformanceRank } from "../rank.ts";
import { type Model, type ModelSpec, modelOf, pass, type ShardSpec, shard } from "./models.ts";
import { averageGradients } from "./training.ts";

/** How gradients add up. */
export interface AccumulationSpec {
  readonly layers: number;
  readonly microbatches: number;
  /** Absent: on replicas, which average their sums. */
  readonly sharding?: ShardSpec;
  /** Groups that leave gradients whole until the last microbatch. */
  readonly deferred?: "all" | "some" | "root" | "none";
  /** With replicas: partial sums stay on the rank until the last microbatch. */
  readonly partial?: boolean;
  readonly reshardAfterBackward?: boolean;
  /** Only the last backward pass is called the last, and all groups are gathered ahead (1F1B). */
  readonly pipelined?: boolean;
}

/** Whole gradients in the order of parameters, and how often collectives ran. */
export interface Accumulated {
  readonly gradients: readonly (readonly number[])[];
  readonly counts: Readonly<Record<"allGather" | "reduceScatter" | "allReduce", number>>;
}

/** Accumulates gradients of a stack. */
export async function accumulate(rank: ConformanceRank, spec: AccumulationSpec): Promise<Accumulated> {
  const kind: ModelSpec = { kind: "stack", layers: spec.layers };
  const inner = modelOf(kind);
  const sharded = spec.sharding && (await shard(rank, inner, spec.sharding));
  const model: Model = sharded?.model ?? inner;
  await model.to(rank.device);
  const counts = { allGather: 0, reduceScatter: 0, allReduce: 0 };
  traceUnits(model, ({ kind: event }) => {
    if (event in counts) counts[event as keyof typeof counts]++;
  });
  const { deferred = "none", microbatches, pipelined = false, reshardAfterBackward = true } = spec;
  // What defers reduction keeps its parameters too, or does not.
  const recurse = deferred !== "root";
  sharded?.model.setReshardAfterBackward(reshardAfterBackward, { recurse });
  if (pipelined) {
    for (const group of [sharded!.model, ...sharded!.groups]) group.unshard({ async: true });
  }
  for (let micro = 0; micro < microbatches; micro++) {
    const last = micro === microbatches - 1;
    if (deferred === "all" || deferred === "root") sharded?.model.setRequiresGradientSync(last, { recurse });
    if (deferred === "some") sharded?.groups[0]?.setRequiresGradientSync(last);
    if (spec.partial === true) sharded?.model.setRequiresAllReduce(last);
    if (pipelined) {
      sharded!.model.setIsLastBackward(last);
      sharded!.model.setReshardAfterBackward(last);
    }
    await pass(rank, model, kind, micro);
  }
  if (sharded === undefined) await averageGradients(rank, model);
  const gradients: (readonly number[])[] = [];
  for (const parameter of model.parameters()) {
    const whole = await gatherLike(parameter, parameter.grad!, true);
    gradients.push(Array.from(whole!, Number));
  }
  model.dispose();
  return { gradients, counts };
}

/** How a reduction divides. */
export interface DividedSpec {
  readonly sharding: ShardSpec;
  /** Of the root alone. */
  readonly divideFactor?: number;
  readonly forceSum?: boolean;
}

/** This rank's parts of the gradients of the root's group and of the blocks'. */
export async function divided(
  rank: ConformanceRank,
  spec: DividedSpec,
): Promise<Readonly<Record<"root" | "blocks", readonly number[]>>> {
  const kind: ModelSpec = { kind: "stack", layers: 2 };
  const { model, groups } = await shard(rank, modelOf(kind), spec.sharding);
  if (spec.divideFactor !== undefined) model.setGradientDivideFactor(spec.divideFactor);
  if (spec.forceSum === true) {
    for (const group of [model, ...groups]) group.setForceSumReductionForComms(true);
  }
  await model.to(rank.device);
  await pass(rank, model, kind, 0);
  const found = { root: [] as number[], blocks: [] as number[] };
  for (const [name, { grad }] of model.namedParameters()) {
    found[name.startsWith("blocks") ? "blocks" : "root"].push(...Array.from(await grad!.data(), Number));
  }
  model.dispose();
  return found;
}

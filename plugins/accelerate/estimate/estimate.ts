/**
 * An estimate: every strategy side by side, for one model, world and workload.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { Registry } from "../../../core/contracts/plugin.ts";
import { type Algorithm, bytesSent, type Network, stepTime } from "./communication.ts";
import { type DryRun, dryRun, type Workload } from "./dry-run.ts";
import { buildModel, type ModelChoice } from "./model-choice.ts";
import { callsInWorlds } from "./scaling.ts";
import {
  allStrategies,
  applies,
  type Precision,
  type Strategy,
  smallestWorld,
  type World,
} from "./strategies.ts";
import { type ZeroStage, zeroBytes } from "./zero.ts";

/** What is asked. */
export interface EstimateRequest {
  readonly model: ModelChoice;
  readonly world: World;
  readonly workload: Workload;
  readonly precision: Precision;
  readonly activationCheckpointing: boolean;
  /** Parts of the names of strategies, of any case; all strategies when empty. */
  readonly only: readonly string[];
  /** Predicts times too. */
  readonly network?: Network | undefined;
}

/** Bytes of one rank. */
export interface RankMemory {
  /** What lies cut between backward pass and update, wherever it is kept. */
  readonly shards: Readonly<Record<"parameter" | "gradient" | "optimizer", number>>;
  /** Most of each category at a time, on the device that computes; they need not peak together. */
  readonly peak: DryRun["device"]["peak"];
  /** Most of parameters, gradients and optimizer state together, what is gathered of them included. */
  readonly peakState: number;
  /** Most of all categories together. */
  readonly peakTotal: number;
  /** Most on the host, when shards are kept there; otherwise 0. */
  readonly hostPeakTotal: number;
}

/** What one rank sends in a step. */
export interface RankCommunication {
  readonly collectives: number;
  readonly bytesSent: number;
  /** Predicted by the model of `communication.ts`, in seconds. */
  readonly seconds?: Readonly<Record<Algorithm, number>> | undefined;
}

/** One strategy. */
export interface StrategyEstimate {
  readonly name: string;
  readonly memory: RankMemory;
  readonly communication: RankCommunication;
  /** Seconds by world size; without those in which the strategy is none of its own. */
  readonly scaling?: readonly (Readonly<Record<Algorithm, number>> & { readonly worldSize: number })[];
}

/** All of them. */
export interface Estimate {
  readonly family: string;
  /** Elements. */
  readonly parameters: number;
  readonly world: World;
  readonly workload: Workload;
  readonly precision: Precision;
  readonly activationCheckpointing: boolean;
  readonly strategies: readonly StrategyEstimate[];
  /** The ZeRO paper's bytes a rank by stage. */
  readonly zero: readonly number[];
}

/** World sizes that times are predicted for: 8, 16, ... 16384. */
export const SCALING_WORLDS: readonly number[] = Array.from({ length: 12 }, (_, i) => 8 * 2 ** i);

/**
 * Runs a rank's step under every strategy, on devices that only count.
 *
 * @throws ConfigError when no strategy has a name that was asked for, or sequences are too long for the model.
 */
export async function estimate(registry: Registry, request: EstimateRequest): Promise<Estimate> {
  const { model, world, workload, precision, activationCheckpointing } = request;
  const { module, contextLength } = buildModel(registry, model);
  if (workload.seqLen > contextLength) {
    throw new ConfigError(
      `cannot use --seq-len: given ${workload.seqLen}, the model takes up to ${contextLength}`,
    );
  }
  const parameters = module.parameters().reduce((sum, { numel }) => sum + numel, 0);
  const strategies: StrategyEstimate[] = [];
  for (const strategy of chosen(registry, request)) {
    strategies.push(await estimateOne(registry, request, strategy));
  }
  const stages: readonly ZeroStage[] = [0, 1, 2, 3];
  return {
    family: model.family,
    parameters,
    world,
    workload,
    precision,
    activationCheckpointing,
    strategies,
    zero: stages.map((stage) => zeroBytes(stage, parameters, world.worldSize)),
  };
}

function chosen(registry: Registry, { only, world, precision }: EstimateRequest): readonly Strategy[] {
  const all = allStrategies(registry).filter(
    (strategy) => applies(strategy, world) && strategy.precision !== precision,
  );
  if (only.length === 0) return all;
  const found = all.filter(({ name }) =>
    only.some((part) => name.toLowerCase().includes(part.toLowerCase())),
  );
  if (found.length > 0) return found;
  throw new ConfigError(
    `cannot use --only: given ${only.join(", ")}, strategies for these ranks are ${all.map(({ name }) => name).join("; ")}`,
  );
}

async function estimateOne(
  registry: Registry,
  request: EstimateRequest,
  strategy: Strategy,
): Promise<StrategyEstimate> {
  const { model, world, workload, precision, activationCheckpointing, network } = request;
  const init = { registry, model, strategy, world, precision, activationCheckpointing };
  const run = await dryRun(init, workload);
  const { parameter, gradient, optimizer } = run.shards;
  const times = (calls: DryRun["calls"], of: World, over: Network) => ({
    ring: stepTime(calls, of, over, "ring"),
    tree: stepTime(calls, of, over, "tree"),
  });
  const one: StrategyEstimate = {
    name: strategy.name,
    memory: {
      shards: { parameter, gradient, optimizer },
      peak: run.device.peak,
      peakState: run.device.peakState,
      peakTotal: run.device.peakTotal,
      hostPeakTotal: run.host?.peakTotal ?? 0,
    },
    communication: {
      collectives: run.calls.length,
      bytesSent: run.calls.reduce((sum, call) => sum + bytesSent(call), 0),
      seconds: network && times(run.calls, world, network),
    },
  };
  if (network === undefined) return one;
  const { ranksPerNode } = world;
  const worlds = SCALING_WORLDS.map((worldSize) => ({ worldSize, ranksPerNode }));
  const smallest = smallestWorld(strategy, ranksPerNode);
  const calls = await callsInWorlds({ ...init, world: smallest }, workload, worlds);
  const scaling = worlds.flatMap((other, i) => {
    const these = calls[i];
    return these === undefined ? [] : [{ worldSize: other.worldSize, ...times(these, other, network) }];
  });
  return { ...one, scaling };
}

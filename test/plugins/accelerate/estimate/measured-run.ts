/** Trains for real, sharded as a configuration says, and measures memory and what collectives carry. */

import { cpuBackend } from "../../../../backends/cpu/mod.ts";
import type { Collective, Work } from "../../../../core/contracts/collective.ts";
import type { MemoryReport } from "../../../../core/contracts/memory.ts";
import type { BackendFactory } from "../../../../core/contracts/plugin.ts";
import type { ShardingConfig } from "../../../../core/runtime/run-config.ts";
import { shardModel } from "../../../../core/runtime/shard-model.ts";
import {
  type CausalLanguageModel,
  Device,
  MODEL,
  optim,
  registry,
  setRequiresGradientSync,
} from "../../../../mod.ts";
import type { Workload } from "../../../../plugins/accelerate/estimate/dry-run.ts";
import type { ModelChoice } from "../../../../plugins/accelerate/estimate/model-choice.ts";
import type { Precision, Strategy, World } from "../../../../plugins/accelerate/estimate/strategies.ts";
import { runRanks, type TestRank } from "../../../support/ranks.ts";

/** What is run. */
export interface MeasuredInit {
  readonly model: ModelChoice;
  readonly strategy: Strategy;
  readonly world: World;
  readonly workload: Workload;
  readonly precision?: Precision;
  readonly activationCheckpointing?: boolean;
}

/** What one rank's later steps took. */
export interface MeasuredRun {
  /** Of each step but the first. */
  readonly device: readonly MemoryReport[];
  /** Of the host, where shards are kept there. */
  readonly host: readonly MemoryReport[];
  /** After the last backward pass: on the device, and on the host. */
  readonly afterBackward: readonly MemoryReport[];
  /** Bytes that a rank sends at least in a step, by the sizes of what was given to collectives. */
  readonly bytesSent: number;
  readonly collectives: number;
}

const STEPS = 2;
const DTYPES = { no: undefined, bf16: "bfloat16", fp16: "float16" } as const;

/** Compiled kernels, which every machine has. */
const cpu: BackendFactory["create"] = (options) =>
  cpuBackend.create({ ...options, settings: { matmul: "wasm" } });

/** Runs all ranks in this event loop. */
export async function measure(
  init: MeasuredInit,
  create: BackendFactory["create"] = cpu,
): Promise<MeasuredRun[]> {
  return await runRanks(init.world.worldSize, (rank) => measureRank(rank, init), create);
}

async function measureRank(rank: TestRank, init: MeasuredInit): Promise<MeasuredRun> {
  const { workload } = init;
  const { device } = rank;
  const traffic = { bytes: 0, calls: 0 };
  const { model, host } = await trainedModel(rank, init, traffic);
  const parameters = model.module.parameters();
  const optimizer =
    workload.optimizer === "sgd"
      ? new optim.SGD(parameters, { lr: 0.1, momentum: workload.momentum })
      : new optim.AdamW(parameters);
  optimizer.initState();
  const backends = host === undefined ? [device.backend] : [device.backend, host.backend];
  const reports: MemoryReport[][] = [];
  let afterBackward: MemoryReport[] = [];
  const { batchSize, seqLen, accumulation = 1 } = workload;
  const ids = Int32Array.from(
    { length: batchSize * seqLen },
    (_, i) => (i * 7 + rank.rank) % model.vocabSize,
  );
  for (let step = 0; step < STEPS; step++) {
    for (const { memory } of backends) memory.resetPeak();
    Object.assign(traffic, { bytes: 0, calls: 0 });
    for (let micro = 1; micro <= accumulation; micro++) {
      setRequiresGradientSync(model.module, micro === accumulation);
      await device.scope(async () => {
        const x = device.tensor(ids, { shape: [batchSize, seqLen] });
        const y = device.tensor(ids, { shape: [batchSize, seqLen] });
        const loss = await model.module.call(x, y);
        await loss.backward({ gradient: device.full([], 1, { dtype: loss.dtype }) });
      });
    }
    afterBackward = backends.map(({ memory }) => memory.report());
    optimizer.step();
    optimizer.zeroGrad();
    if (step > 0) reports.push(backends.map(({ memory }) => memory.report()));
  }
  await host?.backend.dispose();
  return {
    device: reports.map(([first]) => first!),
    host: reports.flatMap(([, second]) => second ?? []),
    afterBackward,
    bytesSent: traffic.bytes,
    collectives: traffic.calls,
  };
}

/** A model as training makes it, on the rank's device. The caller disposes the host's backend, if there is one. */
export async function trainedModel(
  { device, collective }: TestRank,
  init: Omit<MeasuredInit, "workload">,
  traffic: { bytes: number; calls: number } = { bytes: 0, calls: 0 },
): Promise<{ readonly model: CausalLanguageModel; readonly host: Device | undefined }> {
  const { strategy, world } = init;
  const host =
    strategy.offload === true
      ? new Device(await cpuBackend.create({ settings: { matmul: "plain" } }), { seed: 7 })
      : undefined;
  const model = registry.get(MODEL, init.model.family).create(init.model.config);
  const dtype = DTYPES[strategy.precision ?? init.precision ?? "no"];
  await shardModel(registry, model.module, shardingConfig(init), {
    collective: metered(collective, traffic),
    localWorldSize: world.ranksPerNode,
    blockClasses: model.blockClasses,
    rootModules: model.rootModules,
    offload: host && { device: host },
    precision: dtype && { paramDtype: dtype, reduceDtype: dtype },
  });
  await model.module.to(device);
  return { model, host };
}

/** What a user's configuration says for a strategy. */
function shardingConfig({
  strategy,
  world,
  activationCheckpointing = false,
}: Omit<MeasuredInit, "workload">): ShardingConfig {
  const { version, shardingStrategy, reshardAfterForward, hybrid, offload = false } = strategy;
  return {
    version,
    settings: {},
    strategy: shardingStrategy as ShardingConfig["strategy"],
    reshardAfterForward: reshardAfterForward === "node" ? world.ranksPerNode : (reshardAfterForward ?? true),
    forwardPrefetch: false,
    cpuRamEfficientLoading: false,
    offload,
    activationCheckpointing,
    wrapPolicy: "TRANSFORMER_BASED_WRAP",
    minNumParams: 0,
    stateDictType: "SHARDED_STATE_DICT",
    replicas: hybrid === true ? world.worldSize / world.ranksPerNode : undefined,
  };
}

/** A group, and all that are split off it, whose calls are added up. Groups of one send nothing. */
function metered(inner: Collective, traffic: { bytes: number; calls: number }): Collective {
  const { size } = inner;
  const note = (bytes: number, work: Work): Work => {
    if (size > 1) traffic.calls++;
    traffic.bytes += bytes;
    return work;
  };
  return new Proxy(inner, {
    get(target, key) {
      const own: Partial<Collective> = {
        allGather: (output, input) => note(input.byteLength * (size - 1), target.allGather(output, input)),
        reduceScatter: (output, input, op, dtype) =>
          note(output.byteLength * (size - 1), target.reduceScatter(output, input, op, dtype)),
        allReduce: (data, op, dtype) =>
          note((2 * data.byteLength * (size - 1)) / size, target.allReduce(data, op, dtype)),
        split: async (color, part) => metered(await target.split(color, part), traffic),
      };
      const value: unknown = Reflect.get(own, key) ?? Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

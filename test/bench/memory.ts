/**
 * `bun test/bench/memory.ts`: what a rank of a small GPT needs under each strategy, measured by training three steps,
 * beside the usual formula and what PyTorch's test of FSDP2's memory allows (`test_fully_shard_memory.py`). It prints the
 * tables of plugins/fsdp2/memory.md. Bytes are counted, so that every machine prints the same.
 */
import { cpuBackend } from "../../backends/cpu/mod.ts";
import type { Backend, DeviceBuffer } from "../../core/contracts/backend.ts";
import { MEMORY_CATEGORIES, type MemoryCategory, type MemoryReport } from "../../core/contracts/memory.ts";
import { unitsBelow } from "../../core/engine/shard-module.ts";
import { type CausalLanguageModel, optim } from "../../mod.ts";
import type { Strategy, World } from "../../plugins/accelerate/estimate/strategies.ts";
import { trainedModel } from "../plugins/accelerate/estimate/measured-run.ts";
import { runRanks, type TestRank } from "../support/ranks.ts";

/** A model, and the ranks that train it. */
interface Setup {
  readonly config: Readonly<Record<string, unknown>>;
  readonly world: World;
  readonly strategies: readonly Strategy[];
}

const reshard: Strategy = { name: "reshard `true`", version: "fsdp2" };
const keep: Strategy = { name: "reshard `false`", version: "fsdp2", reshardAfterForward: false };
const offload: Strategy = { name: "reshard `true`, offload", version: "fsdp2", offload: true };

/** 1.6 million parameters, nearly all in eight equal blocks. */
const DEEP: Setup = {
  config: { vocab_size: 256, n_positions: 128, n_embd: 128, n_layer: 8, n_head: 4 },
  world: { worldSize: 4, ranksPerNode: 2 },
  strategies: [
    { name: "DDP (`NO_SHARD`)", version: "fsdp1", shardingStrategy: "NO_SHARD" },
    keep,
    { name: "reshard `2`", version: "fsdp2", reshardAfterForward: "node" },
    reshard,
    offload,
    { name: "reshard `true`, bf16", version: "fsdp2", precision: "bf16" },
    { name: "reshard `true`, float8 gather", version: "fsdp2-float8" },
  ],
};

/** The model of PyTorch's test, narrower: three blocks, an untied head, two ranks. */
const PYTORCH: Setup = {
  config: {
    vocab_size: 32,
    n_positions: 64,
    n_embd: 128,
    n_layer: 3,
    n_head: 4,
    tie_word_embeddings: false,
  },
  world: { worldSize: 2, ranksPerNode: 2 },
  strategies: [keep, reshard, offload],
};

const TOKENS = [1, 16] as const;

/** Sizes that the formulas speak of, in bytes of float32. */
export interface Sizes {
  /** All parameters. */
  readonly whole: number;
  /** A rank's part of them. */
  readonly part: number;
  /** A block. */
  readonly block: number;
  /** Parameters outside of blocks. */
  readonly rest: number;
}

/** What rank 0 measured, in bytes. */
export interface Measured {
  readonly strategy: Strategy;
  readonly world: World;
  readonly sizes: Sizes;
  /** What is there after `to(device)`, and without activations the most in the first step's forward and backward pass. */
  readonly sharded: number;
  readonly forward: number;
  readonly backward: number;
  /** What is there after the first update, and after its gradients went. */
  readonly updated: number;
  readonly zeroed: number;
  /** The later steps; `held`: the most without activations. */
  readonly steps: readonly (MemoryReport & { readonly held: number })[];
  /** Most on the host, when shards are kept there. */
  readonly host: number;
}

/** Bytes that are no activations: a count beside the backend's own. */
class Held {
  readonly #categories: WeakMap<DeviceBuffer, MemoryCategory> = new WeakMap();
  current = 0;
  #peak = 0;

  note(buffer: DeviceBuffer, category: MemoryCategory = "activation"): void {
    const before = this.#categories.get(buffer) ?? "activation";
    this.#categories.set(buffer, category);
    if (before !== "activation") this.current -= buffer.byteLength;
    if (category !== "activation") this.current += buffer.byteLength;
    this.#peak = Math.max(this.#peak, this.current);
  }

  /** Most since the last time it was asked. */
  takePeak(): number {
    const peak = this.#peak;
    this.#peak = this.current;
    return peak;
  }
}

/** A backend whose buffers are counted too. */
function watched(backend: Backend, held: Held): Backend {
  const own: Partial<Backend> = {
    allocate(byteLength, category) {
      const buffer = backend.allocate(byteLength, category);
      held.note(buffer, category);
      return buffer;
    },
    release(buffer) {
      held.note(buffer);
      backend.release(buffer);
    },
    relabel(buffer, category) {
      backend.relabel(buffer, category);
      held.note(buffer, category);
    },
  };
  return new Proxy(backend, {
    get(target, key) {
      const value: unknown = Reflect.get(own, key) ?? Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function sizesOf({ module }: CausalLanguageModel, { worldSize }: World): Sizes {
  const [root, block] = unitsBelow(module);
  const whole = module.parameters().reduce((sum, { byteLength }) => sum + byteLength, 0);
  return { whole, part: whole / worldSize, block: 4 * block!.numel, rest: 4 * root!.numel };
}

async function measureRank(
  rank: TestRank,
  { config, world }: Setup,
  strategy: Strategy,
  held: Held,
): Promise<Measured> {
  const { device } = rank;
  const { memory } = device.backend;
  const { model, host } = await trainedModel(rank, { model: { family: "gpt2", config }, strategy, world });
  const optimizer = new optim.AdamW(model.module.parameters());
  const ids = Int32Array.from({ length: TOKENS[0] * TOKENS[1] }, (_, i) => (i + rank.rank) % model.vocabSize);
  const pass = (between: () => void): Promise<void> =>
    device.scope(async () => {
      const x = device.tensor(ids, { shape: TOKENS });
      const loss = await model.module.call(x, x);
      between();
      await loss.backward();
    });
  const sharded = held.current;
  held.takePeak();
  let forward = 0;
  await pass(() => {
    forward = held.takePeak();
  });
  const backward = held.takePeak();
  optimizer.step();
  const updated = held.current;
  optimizer.zeroGrad();
  const zeroed = held.current;
  const steps: (MemoryReport & { readonly held: number })[] = [];
  for (let step = 0; step < 2; step++) {
    memory.resetPeak();
    held.takePeak();
    await pass(() => {});
    optimizer.step();
    optimizer.zeroGrad();
    steps.push({ ...memory.report(), held: held.takePeak() });
  }
  const onHost = host?.backend.memory.report().peakTotal ?? 0;
  await host?.backend.dispose();
  const sizes = sizesOf(model, world);
  return { strategy, world, sizes, sharded, forward, backward, updated, zeroed, steps, host: onHost };
}

async function measureSetup(setup: Setup): Promise<readonly Measured[]> {
  const all: Measured[] = [];
  for (const strategy of setup.strategies) {
    const held = Array.from({ length: setup.world.worldSize }, () => new Held());
    const [first] = await runRanks(
      setup.world.worldSize,
      (rank) => measureRank(rank, setup, strategy, held[rank.rank]!),
      async (options) => watched(await cpuBackend.create(options), held[options.rank!]!),
    );
    all.push(first!);
  }
  return all;
}

/** Rank 0's figures under every strategy: of a deep model, and of PyTorch's. */
export interface MemoryFigures {
  readonly deep: readonly Measured[];
  readonly pytorch: readonly Measured[];
}

/** Trains, all ranks in this event loop. */
export async function measureMemory(): Promise<MemoryFigures> {
  return { deep: await measureSetup(DEEP), pytorch: await measureSetup(PYTORCH) };
}

/**
 * What a step needs without activations, by the usual formula. Parameters and Adam's state lie cut, and gradients at most,
 * which come block by block; two to three groups are gathered; one group has its gradients and their reduction.
 */
export function formula({ strategy, world, sizes }: Measured): readonly [least: number, most: number] {
  const { whole, part, block, rest } = sizes;
  const narrow = strategy.precision === "bf16" ? 1 / 2 : 1;
  const slice = block / world.worldSize;
  const reduced = narrow * (block + slice);
  if (strategy.shardingStrategy === "NO_SHARD") return [3 * whole, 4 * whole + reduced];
  if (strategy.reshardAfterForward === false) return [3 * part + whole, 4 * part + whole + reduced];
  const gathered = (groups: number): number => narrow * (groups * block + rest);
  // One part is on its way to the host; those to the device go straight to their place.
  if (strategy.offload === true) return [gathered(2) + reduced, gathered(3) + reduced + slice];
  const kept = strategy.reshardAfterForward === "node" ? (whole - rest) / world.ranksPerNode : 0;
  return [3 * part + gathered(2) + reduced, 4 * part + kept + gathered(3) + reduced];
}

/** PyTorch's test adds 16 MB for buffers and activations where a block has 28.3 MB. */
const SLACK = 16 / 28.3;

/** What PyTorch's test allows at each point of the first step, in the order of `atPoints`. */
export function allowed({ strategy, sizes }: Measured): readonly number[] {
  const { whole, part, block, rest } = sizes;
  const slack = SLACK * block;
  if (strategy.offload === true) {
    return [1.5 * block, 3 * block + rest + slack, 4 * block + rest + slack, slack, slack];
  }
  const passes =
    strategy.reshardAfterForward === false
      ? [part + whole + block, part + whole + 1.5 * block]
      : [3 * block + rest + part, 4 * block + rest + 2 * part];
  return [part + block, ...passes.map((bytes) => bytes + slack), 4 * part + slack, 3 * part + slack];
}

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(2);

function markdown(header: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const rule = header.map((_, i) => (i === 0 ? "---" : "---:"));
  return [header, rule, ...rows].map((cells) => `| ${cells.join(" | ")} |`);
}

/** Peaks of a later step by category. */
function categoryTable(all: readonly Measured[]): readonly string[] {
  const header = ["", ...MEMORY_CATEGORIES, "all at once", "host", "without activations", "formula"];
  const rows = all.map((measured) => {
    const { strategy, steps, host } = measured;
    const { peak, peakTotal, held } = steps[0]!;
    const [least, most] = formula(measured);
    return [
      strategy.name,
      ...MEMORY_CATEGORIES.map((category) => mib(peak[category])),
      ...[peakTotal, host, held].map(mib),
      `${mib(least)} to ${mib(most)}`,
    ];
  });
  return markdown(header, rows);
}

/** What is measured at each point of the first step. */
export function atPoints(one: Measured): readonly number[] {
  return [one.sharded, one.forward, one.backward, one.updated, one.zeroed];
}

const POINTS = [
  "after sharding",
  "most in forward",
  "most in backward",
  "after the update",
  "after `zeroGrad`",
] as const;

/** Points of the first step beside what is allowed there. */
function pointTable(all: readonly Measured[]): readonly string[] {
  const header = ["", ...all.flatMap(({ strategy }) => [strategy.name, "allowed"])];
  const rows = POINTS.map((point, i) => [
    point,
    ...all.flatMap((one) => [mib(atPoints(one)[i]!), mib(allowed(one)[i]!)]),
  ]);
  return markdown(header, rows);
}

function sizesLine([first]: readonly Measured[]): string {
  const { whole, part, block, rest } = first!.sizes;
  return `U = ${mib(whole)}, M = ${mib(part)}, B = ${mib(block)}, N = ${mib(rest)}`;
}

/** The tables of plugins/fsdp2/memory.md, each with its model's sizes above it. */
export function memoryTables({ deep, pytorch }: MemoryFigures): readonly (readonly string[])[] {
  return [
    [sizesLine(deep), "", ...categoryTable(deep)],
    [sizesLine(pytorch), "", ...pointTable(pytorch)],
  ];
}

if (import.meta.main) {
  for (const table of memoryTables(await measureMemory())) console.log(`${table.join("\n")}\n`);
}

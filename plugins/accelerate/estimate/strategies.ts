/**
 * The strategies that stand side by side in an estimate, and the ranks that each works over.
 *
 * @module
 */
import type { Registry } from "../../../core/contracts/plugin.ts";
import { SHARDING } from "../../../core/runtime/sharding-version.ts";

/** Ranks of a job. */
export interface World {
  readonly worldSize: number;
  /** Ranks of one host: hybrid strategies cut within it, and replicate over hosts. */
  readonly ranksPerNode: number;
}

/** What is gathered, computed and reduced in; `no`: float32. */
export type Precision = "no" | "bf16" | "fp16";

/** One way to shard. */
export interface Strategy {
  /** What people call it, for example `"fsdp2 reshard"`. */
  readonly name: string;
  /** Registered FSDP version. */
  readonly version: string;
  /** FSDP1's strategy. */
  readonly shardingStrategy?: string;
  /** FSDP2's; a version's own rule when absent. */
  readonly reshardAfterForward?: boolean | "node";
  /** Cut within a host, replicated over hosts. */
  readonly hybrid?: boolean;
  /** Shards, gradients and optimizer state in host memory. */
  readonly offload?: boolean;
  /** In place of the estimate's. */
  readonly precision?: Precision;
}

const BUILT_IN: readonly Strategy[] = [
  { name: "DDP (fsdp1 NO_SHARD)", version: "fsdp1", shardingStrategy: "NO_SHARD" },
  { name: "fsdp1 SHARD_GRAD_OP", version: "fsdp1", shardingStrategy: "SHARD_GRAD_OP" },
  { name: "fsdp1 FULL_SHARD", version: "fsdp1", shardingStrategy: "FULL_SHARD" },
  {
    name: "fsdp1 HYBRID_SHARD_ZERO2",
    version: "fsdp1",
    shardingStrategy: "HYBRID_SHARD_ZERO2",
    hybrid: true,
  },
  { name: "fsdp1 HYBRID_SHARD", version: "fsdp1", shardingStrategy: "HYBRID_SHARD", hybrid: true },
  { name: "fsdp2 reshard false", version: "fsdp2", reshardAfterForward: false },
  { name: "fsdp2 reshard node", version: "fsdp2", reshardAfterForward: "node" },
  { name: "fsdp2 reshard true", version: "fsdp2" },
  { name: "fsdp2 HSDP reshard false", version: "fsdp2", reshardAfterForward: false, hybrid: true },
  { name: "fsdp2 HSDP reshard true", version: "fsdp2", hybrid: true },
  { name: "fsdp2 reshard true, offload", version: "fsdp2", offload: true },
  { name: "fsdp2 reshard true, bf16", version: "fsdp2", precision: "bf16" },
];

/** All strategies: of the built-in versions every one, of others what they do when asked for nothing. */
export function allStrategies(registry: Registry): readonly Strategy[] {
  const versions = registry.names(SHARDING);
  const known = new Set(BUILT_IN.map(({ version }) => version));
  const others = versions.filter((version) => !known.has(version));
  return [
    ...BUILT_IN.filter(({ version }) => versions.includes(version)),
    ...others.map((version) => ({ name: version, version })),
  ];
}

/** Whether a strategy is one of its own in a world: what depends on hosts needs several, of several ranks each. */
export function applies({ hybrid, reshardAfterForward }: Strategy, world: World): boolean {
  const { worldSize, ranksPerNode } = world;
  if (hybrid !== true && reshardAfterForward !== "node") return true;
  return ranksPerNode > 1 && ranksPerNode < worldSize && worldSize % ranksPerNode === 0;
}

/** The smallest world in which a strategy is one of its own and ranks have others to talk to. */
export function smallestWorld(strategy: Strategy, ranksPerNode: number): World {
  const pair = { worldSize: 2, ranksPerNode };
  return applies(strategy, pair) ? pair : { worldSize: 2 * ranksPerNode, ranksPerNode };
}

/** `[ranks]`, or `[replicas, ranks that cut]`. */
export function meshShape({ hybrid }: Strategy, { worldSize, ranksPerNode }: World): readonly number[] {
  return hybrid === true ? [worldSize / ranksPerNode, ranksPerNode] : [worldSize];
}

/**
 * What a step's collectives send, and how long they take on a network: the usual model of `latency + bytes / bandwidth`
 * a message, for rings and for trees (Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication
 * Operations in MPICH", 2005). Nothing overlaps in it, neither with computing nor with other collectives: it is the time
 * that computing has to hide.
 *
 * @module
 */
import type { World } from "./strategies.ts";

/** A collective of a step. */
export interface Call {
  readonly kind: "allGather" | "reduceScatter" | "allReduce";
  /** Which of the model's units: 0 is the first of `unitsBelow`. Absent when it is no unit's. */
  readonly unit?: number;
  /** Ranks that take part. */
  readonly ranks: number;
  /** Of one rank's slice; of the whole for `allReduce`. */
  readonly bytes: number;
}

/** One way between two ranks. */
export interface Link {
  /** Seconds until the first byte arrives. */
  readonly latency: number;
  /** Bytes a second. */
  readonly bandwidth: number;
}

/** The links of a world. */
export interface Network {
  readonly withinNode: Link;
  readonly betweenNodes: Link;
}

/**
 * How messages go. `ring`: to the next rank, as often as there are others. `tree`: to partners at doubled distances, in
 * the logarithm of that (recursive doubling and halving).
 */
export type Algorithm = "ring" | "tree";

/** Bytes that one rank sends: the fewest that any algorithm needs. */
export function bytesSent({ kind, ranks, bytes }: Call): number {
  return kind === "allReduce" ? (2 * bytes * (ranks - 1)) / ranks : bytes * (ranks - 1);
}

/** Seconds that one collective takes over a link. */
export function callTime(call: Call, { latency, bandwidth }: Link, algorithm: Algorithm): number {
  const { kind, ranks } = call;
  const rounds = algorithm === "ring" ? ranks - 1 : Math.ceil(Math.log2(ranks));
  const passes = kind === "allReduce" ? 2 : 1;
  return passes * rounds * latency + bytesSent(call) / bandwidth;
}

/** Seconds that all collectives of a step take, one after the other. */
export function stepTime(
  calls: readonly Call[],
  world: World,
  network: Network,
  algorithm: Algorithm,
): number {
  return calls.reduce((sum, call) => {
    const link = staysInNode(call, world) ? network.withinNode : network.betweenNodes;
    return sum + callTime(call, link, algorithm);
  }, 0);
}

/** Replicas are on different nodes, if there are several; ranks that cut or keep together follow each other. */
function staysInNode({ kind, ranks }: Call, { worldSize, ranksPerNode }: World): boolean {
  return kind === "allReduce" ? worldSize <= ranksPerNode : ranks <= ranksPerNode;
}

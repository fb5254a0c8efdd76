/** The suite's models, and ways to shard them. Whatever a rank must be told about it can be sent to a thread. */
import type { MixedPrecisionPolicy } from "../../../../core/engine/mixed-precision.ts";
import {
  checkpoint,
  Embedding,
  LayerNorm,
  Linear,
  Module,
  type Parameter,
  ReLU,
  Sequential,
} from "../../../../core/nn/mod.ts";
import type { AnyModule } from "../../../../core/nn/module.ts";
import { type DeviceMesh, initDeviceMesh } from "../../../../core/runtime/device-mesh.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../../core/tensor/tensor.ts";
import { type FSDPModule, type FullyShardOptions, fullyShard } from "../../../../plugins/fsdp2/mod.ts";
import { Block, Stack } from "../../../support/models.ts";
import type { ConformanceRank } from "../rank.ts";

/** A model of this suite: takes a batch of token ids or of rows. */
export type Model = Module<[x: Tensor], Tensor>;

/** Which model. */
export type ModelSpec =
  /** Blocks between an input and an output layer; no world shares an extent evenly. */
  | { readonly kind: "stack"; readonly layers?: number }
  /** Two layers of given extents. */
  | { readonly kind: "pair"; readonly extents: readonly [number, number, number] }
  /** An embedding whose table is the output layer's too. */
  | { readonly kind: "tied"; readonly rows: number };

/** An embedding, a block, a norm, and the embedding's table again. */
class Tied extends Module<[ids: Tensor], Tensor> {
  readonly embed: Embedding;
  readonly blocks: readonly Block[];
  readonly norm: LayerNorm = new LayerNorm(6);
  readonly head: Linear;

  constructor(rows: number) {
    super();
    this.embed = new Embedding(rows, 6);
    this.blocks = [new Block(6, 7), new Block(6, 7)];
    this.head = new Linear(6, rows, { bias: false });
    Object.assign(this.head, { weight: this.embed.weight });
  }

  override async forward(ids: Tensor): Promise<Tensor> {
    let states = await this.embed.call(ids);
    for (const block of this.blocks) states = await block.call(states);
    return await this.head.call(await this.norm.call(states));
  }
}

/** Makes a model, without values. */
export function modelOf(spec: ModelSpec): Model {
  if (spec.kind === "tied") return new Tied(spec.rows);
  if (spec.kind === "stack") return new Stack({ layers: spec.layers ?? 3, features: 5, width: 6, hidden: 7 });
  const [a, b, c] = spec.extents;
  return new Sequential(new Linear(a, b), new ReLU(), new Linear(b, c));
}

/** How a model is sharded. */
export interface ShardSpec {
  /** Extents of the mesh. Default: all ranks in one dim. */
  readonly mesh?: readonly number[];
  readonly reshardAfterForward?: boolean | number;
  readonly forwardPrefetch?: boolean;
  /** What becomes a group: everything, each block, each layer, or blocks in pairs and the layers around them together. */
  readonly groups?: "one" | "blocks" | "layers" | "lists";
  /** Parameters are cut on their largest dim, not on the first. */
  readonly largestDim?: boolean;
  /** What is computed again in backward: every layer, every block, or the model. */
  readonly checkpointed?: "layers" | "blocks" | "model";
  /** Shards stay on a CPU. */
  readonly offload?: boolean;
  /** Its output type is the root's. */
  readonly precision?: MixedPrecisionPolicy;
  /** How many groups each gathers ahead, forward and backward, by lists. */
  readonly ahead?: number;
  readonly maxReductions?: number;
}

/** A sharded model without values yet, and its groups but for the root's. */
export interface ShardedModel {
  readonly model: Model & FSDPModule;
  readonly groups: readonly (AnyModule & FSDPModule)[];
}

/** The mesh that a spec asks for. */
export async function meshOf(rank: ConformanceRank, spec: ShardSpec): Promise<DeviceMesh> {
  return spec.mesh === undefined ? rank.mesh : await initDeviceMesh(rank.collective, spec.mesh);
}

/** Shards a model. */
export async function shard(rank: ConformanceRank, inner: Model, spec: ShardSpec): Promise<ShardedModel> {
  const { reshardAfterForward, forwardPrefetch, precision, largestDim, ahead = 0 } = spec;
  const host: Device | undefined = spec.offload === true ? await rank.hostDevice() : undefined;
  const options: FullyShardOptions = {
    mesh: await meshOf(rank, spec),
    reshardAfterForward,
    forwardPrefetch,
    mpPolicy: precision && { ...precision, outputDtype: undefined },
    shardPlacementFn: largestDim === true ? longest : undefined,
    offloadPolicy: host && { device: host },
  };
  const { checkpointed } = spec;
  if (checkpointed === "layers") layersOf(inner).map(checkpoint);
  if (checkpointed === "blocks") blocksOf(inner).map(checkpoint);
  if (checkpointed === "model") checkpoint(inner);
  const groups = partsOf(inner, spec.groups ?? "blocks").flatMap((part) => fullyShard(part, options));
  const model = fullyShard(inner, { ...options, mpPolicy: precision });
  if (spec.maxReductions !== undefined) model.setReduceScatterMaxInputBuffers(spec.maxReductions);
  if (ahead > 0) {
    for (const [i, group] of groups.entries()) {
      group.setModulesToForwardPrefetch(groups.slice(i + 1, i + 1 + ahead));
      group.setModulesToBackwardPrefetch(groups.slice(Math.max(0, i - ahead), i).toReversed());
    }
  }
  return { model, groups };
}

/** Lists of modules, each of which makes a group. */
function partsOf(model: Model, how: NonNullable<ShardSpec["groups"]>): readonly (readonly AnyModule[])[] {
  if (how === "one") return [];
  if (how === "layers") return layersOf(model).map((layer) => [layer]);
  const blocks = blocksOf(model);
  const inBlocks = new Set(blocks.flatMap((block) => [...block.modules()]));
  const around = layersOf(model).filter((layer) => !inBlocks.has(layer));
  const size = how === "lists" ? 2 : 1;
  const parts = Array.from({ length: Math.ceil(blocks.length / size) }, (_, i) =>
    blocks.slice(size * i, size * i + size),
  );
  // What shares a table must be in one group.
  return how === "lists" || model instanceof Tied ? [...parts, around] : parts;
}

function blocksOf(model: Model): Block[] {
  return [...model.modules()].filter((module) => module instanceof Block);
}

function layersOf(model: Model): AnyModule[] {
  return [...model.modules()].filter((module) => [...module.ownParameters()].length > 0);
}

function longest({ shape }: Parameter): number {
  return shape.indexOf(Math.max(...shape));
}

/** Rows of a batch over all ranks, which worlds of 1, 2, 3, 4 and 8 share evenly. */
const ROWS = 24;

/** A rank's part of batch `step`, which is the same in every world. */
export function batchOf(
  { device, rank, worldSize }: ConformanceRank,
  spec: ModelSpec,
  step: number,
): { readonly x: Tensor; readonly y: Tensor } {
  const rows = ROWS / worldSize;
  const first = rank * rows;
  if (spec.kind === "tied") {
    const ids = (shift: number) =>
      device.tensor(
        Int32Array.from({ length: rows }, (_, i) => ((first + i) * 5 + step * 7 + shift) % spec.rows),
      );
    return { x: ids(0), y: ids(3) };
  }
  const [features, outputs] = spec.kind === "pair" ? [spec.extents[0], spec.extents[2]] : [5, 1];
  const table = (columns: number, phase: number) =>
    device.tensor(
      Array.from({ length: rows }, (_, i) =>
        Array.from({ length: columns }, (_, j) => Math.sin(phase + (first + i) * columns + j + step * 31)),
      ),
    );
  return { x: table(features, 1), y: table(outputs, 2) };
}

/** The loss of a rank's part of batch `step`. */
export async function lossOf(
  rank: ConformanceRank,
  model: Model,
  spec: ModelSpec,
  step: number,
): Promise<Tensor> {
  const { x, y } = batchOf(rank, spec, step);
  const out = await model.call(x);
  return spec.kind === "tied" ? ops.crossEntropy(out, y) : ops.mseLoss(out, y);
}

/** One forward and backward pass. Returns this rank's loss. */
export async function pass(
  rank: ConformanceRank,
  model: Model,
  spec: ModelSpec,
  step: number,
): Promise<number> {
  return await rank.device.scope(async () => {
    const loss = await lossOf(rank, model, spec, step);
    await loss.backward();
    return await loss.item();
  });
}

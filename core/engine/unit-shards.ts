/**
 * The shards of a unit: this rank's memory of its parameters, on the device that keeps them, and what parameters ask of
 * it as their manager.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import { StateError } from "../contracts/errors.ts";
import type { ShardPiece } from "../contracts/shard.ts";
import type { LocalPiece, Parameter, ParameterManager } from "../nn/parameter.ts";
import type { Device } from "../tensor/device.ts";
import { numelOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Bucket, makeBuckets } from "./bucket.ts";
import { copyInto, uploaded } from "./copies.ts";
import { planMoves } from "./moves.ts";
import type { ShardModuleOptions } from "./shard-options.ts";

/** One rank's memory of a unit's parameters. */
export class UnitShards {
  readonly name: string;
  readonly parameters: readonly Parameter[];
  readonly buckets: readonly Bucket[];
  readonly group: Collective;
  readonly replicate: Collective | undefined;
  readonly #offload: Device | undefined;
  /** Of every parameter, what this rank holds, as its bucket's shard says. */
  readonly #own: readonly (readonly ShardPiece[])[];
  #flats: readonly Tensor[] = [];
  #locals: readonly Tensor[] = [];
  #compute: Device | undefined;

  constructor(name: string, parameters: readonly Parameter[], options: ShardModuleOptions) {
    this.name = name;
    this.parameters = parameters;
    this.group = options.group;
    this.replicate = options.replicate;
    this.#offload = options.offload?.device;
    this.buckets = makeBuckets(parameters, options);
    this.#own = this.piecesOf(options.group.rank);
  }

  /** Whether there are values, and a device that computes with them. */
  get materialized(): boolean {
    return this.#flats.length > 0 && this.#compute !== undefined;
  }

  /** The device that computes. @throws StateError before the model was put on one. */
  get compute(): Device {
    if (this.#compute === undefined) throw this.#missing();
    return this.#compute;
  }

  /** The device that keeps the shards. */
  get home(): Device {
    return this.#flat(0).device;
  }

  /** The flat shard of each bucket. @throws StateError before the model was put on a device. */
  get flats(): readonly Tensor[] {
    this.#flat(0);
    return this.#flats;
  }

  /** This rank's part of a parameter. @throws StateError before the model was put on a device. */
  local(parameter: number): Tensor {
    this.#flat(0);
    return this.#locals[parameter]!;
  }

  /** What a rank holds of every parameter, in the unit's order. */
  piecesOf(rank: number): readonly (readonly ShardPiece[])[] {
    const pieces: ShardPiece[][] = this.parameters.map(() => []);
    for (const { members, shard } of this.buckets) {
      for (const piece of shard.pieces(rank)) {
        if (numelOf(piece.sizes) > 0) pieces[members[piece.parameter]!]!.push(piece);
      }
    }
    return pieces;
  }

  /**
   * Takes the parameters over; the unit is told when a shard was written to, and when memory is to go.
   *
   * @throws StateError when only some have values, or they have them where this rank's part cannot be taken from.
   */
  manage(unit: Required<Pick<ParameterManager, "updated" | "dispose">>): void {
    const holder = this.parameters.find((parameter) => parameter.owned);
    if (holder !== undefined) this.#requireValues(holder.device);
    for (const [i, parameter] of this.parameters.entries()) parameter.manage(this.#manager(i, unit));
    if (holder !== undefined) this.#cut(holder.device);
  }

  /** Frees the shards. The parameters are as before they were put on a device. */
  dispose(): void {
    for (const tensor of [...this.#locals, ...this.#flats]) tensor.dispose();
    this.#flats = [];
    this.#locals = [];
    this.#compute = undefined;
  }

  #manager(index: number, unit: Required<Pick<ParameterManager, "updated" | "dispose">>): ParameterManager {
    const shards = this;
    return {
      unit: this.name,
      group: this.group,
      replicate: this.replicate,
      pieces: (rank) =>
        localPieces(rank === this.group.rank ? this.#own[index]! : this.#piecesOf(index, rank)),
      get local() {
        return shards.local(index);
      },
      get materialized() {
        return shards.materialized;
      },
      materialize: (device) => this.#materialize(device),
      updated: unit.updated,
      dispose: unit.dispose,
    };
  }

  #piecesOf(index: number, rank: number): readonly ShardPiece[] {
    const { members, shard } = this.buckets.find((bucket) => bucket.members.includes(index))!;
    return shard
      .pieces(rank)
      .filter(({ parameter, sizes }) => members[parameter] === index && numelOf(sizes) > 0);
  }

  async #materialize(device: Device): Promise<void> {
    if (this.#flats.length === 0) {
      this.#allocate(this.#offload ?? device);
      try {
        await this.#fill(device.seed);
      } catch (error) {
        this.dispose();
        throw error;
      }
    }
    this.#compute = device;
    for (const parameter of this.parameters) parameter.dropGathered(device);
  }

  /** Writes this rank's part of the initial values. */
  async #fill(seed: number): Promise<void> {
    for (const [b, { members, shard }] of this.buckets.entries()) {
      const flat = this.#flat(b);
      for (const piece of shard.pieces(this.group.rank)) {
        const data = await this.parameters[members[piece.parameter]!]!.initial(seed, piece);
        const span = { ...flat.span, offset: flat.offset + piece.shardOffset, length: data.length };
        flat.device.backend.write(span, data);
      }
    }
  }

  #requireValues(device: Device): void {
    for (const parameter of this.parameters) {
      if (!parameter.owned) {
        throw new StateError(
          `Sharding unit "${this.name}" failed: parameter "${parameter.name}" has no values while others have, put the whole model on the device first, or shard before it`,
        );
      }
      const here = this.#offload === undefined || this.#offload === device;
      if (here || device.backend.hostView(parameter.span) !== undefined) continue;
      throw new StateError(
        `Sharding unit "${this.name}" failed: it is to be offloaded, and parameter "${parameter.name}" has its values on backend "${device.backend.name}", shard the model before it is put on a device, or put it on the offload policy's first`,
      );
    }
  }

  /** Cuts this rank's part out of parameters that have values on `device`, and frees the rest. */
  #cut(device: Device): void {
    const whole = this.parameters.map((parameter) => parameter.alias());
    const home = this.#offload ?? device;
    this.#allocate(home);
    for (const parameter of this.parameters) parameter.dropGathered(device);
    // Values that came in host memory say nothing of where to compute: `to(device)` will.
    if (device !== this.#offload) this.#compute = device;
    for (const [b, { members, shard }] of this.buckets.entries()) {
      const { shardNumel } = shard;
      const base = this.group.rank * shardNumel;
      const flat = device === home ? this.#flat(b) : device.allocate([shardNumel], this.#flat(b).dtype);
      if (device !== home) device.backend.kernels.fill(flat.span, 0);
      const { moves } = planMoves(shard);
      for (const [j, member] of members.entries()) {
        const boxes = moves[j]!.in.map((box) => ({ ...box, targetOffset: box.targetOffset - base })).filter(
          (box) => box.targetOffset >= 0 && box.targetOffset < shardNumel,
        );
        device.backend.kernels.copy(whole[member]!.span, flat.span, boxes);
      }
      if (device !== home) this.#takeHome(flat, this.#flat(b));
    }
    for (const values of whole) values.dispose();
  }

  /** Moves a shard (taken over) from the device that computes to the one that keeps it. */
  #takeHome(flat: Tensor, target: Tensor): void {
    const there = uploaded(flat, target.device, "communication");
    copyInto(target, there);
    there.dispose();
  }

  /** Allocates zeroed flat shards, and the parameters' parts of them. */
  #allocate(home: Device): void {
    const flats = this.buckets.map(({ dtype, shard }) => {
      const flat = home.allocate([shard.shardNumel], dtype, "parameter");
      home.backend.kernels.fill(flat.span, 0);
      return flat;
    });
    const locals: Tensor[] = [];
    for (const [b, { members, shard }] of this.buckets.entries()) {
      for (const [j, member] of members.entries()) {
        const offset = this.#own[member]![0]?.shardOffset ?? 0;
        locals[member] = flats[b]!.alias(shard.localShape(j, this.group.rank), offset);
      }
    }
    this.#flats = flats;
    this.#locals = locals;
  }

  #flat(bucket: number): Tensor {
    const flat = this.#flats[bucket];
    if (flat === undefined) throw this.#missing();
    return flat;
  }

  #missing(): StateError {
    const names = this.parameters.map((parameter) => `"${parameter.name}"`).join(", ");
    return new StateError(
      `Unit "${this.name}" has no values yet: call await model.to(device) first (parameters ${names})`,
    );
  }
}

function localPieces(own: readonly ShardPiece[]): LocalPiece[] {
  return own.map(({ offsets, sizes, shardOffset }) => ({
    offsets,
    sizes,
    localOffset: shardOffset - own[0]!.shardOffset,
  }));
}

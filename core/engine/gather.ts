/**
 * Gathering: from the ranks' shards of a unit to its whole parameters.
 *
 * One collective carries the whole unit. A parameter that lies in the gathered buffer as it is becomes a view of it, the
 * others are copied out. Follows FSDP2's `foreach_all_gather` and `foreach_all_gather_copy_out`
 * (torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py).
 *
 * @module
 */
import type { Collective, Work } from "../contracts/collective.ts";
import { DTYPES, type DType } from "../contracts/dtype.ts";
import { ShapeError } from "../contracts/errors.ts";
import type { AllGatherContext } from "../nn/all-gather-extension.ts";
import type { Device } from "../tensor/device.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Bucket } from "./bucket.ts";
import { copyAcross, copyInto, uploaded, viewOf } from "./copies.ts";
import { type Frame, frameOf, type Segment, type SegmentSpec } from "./frame.ts";
import { type ParameterMoves, planMoves } from "./moves.ts";
import { allGather } from "./transfer.ts";
import type { UnitShards } from "./unit-shards.ts";

/** What was gathered, or a part of it that a rank keeps, and how to read it. */
export interface Gathered {
  readonly buffer: Tensor;
  readonly frame: Frame;
  /** Of every bucket: what its extension said. */
  readonly metadata: readonly unknown[];
}

/** A gather under way. */
export interface Gathering extends Gathered {
  /** What this rank sends, when it is no part of the buffer. */
  readonly input: Tensor | undefined;
  /** Absent when there is nobody to gather from. */
  readonly work: Work | undefined;
}

/** Gathers a unit's parameters. */
export class Gatherer {
  readonly #shards: UnitShards;
  readonly #paramDtype: DType | undefined;
  /** Copies of every bucket, by its place in the buffer. */
  readonly #moves: Map<string, readonly ParameterMoves[]> = new Map();

  constructor(shards: UnitShards, paramDtype: DType | undefined) {
    this.#shards = shards;
    this.#paramDtype = paramDtype;
  }

  /** Sends this rank's shards. */
  start(): Gathering {
    const { buckets, flats, group, compute } = this.#shards;
    const sent = buckets.map((bucket, b) => this.#sentBy(bucket, flats[b]!));
    const sources = sent.flatMap(({ inputs }) => inputs);
    const metadata = sent.map((bucket) => bucket.metadata);
    const frame = frameOf(sources);
    const single = sources.length === 1 ? sources[0] : undefined;
    if (single !== undefined && group.size === 1) {
      return { buffer: ownTensor(single, compute), frame, metadata, input: undefined, work: undefined };
    }
    const buffer = compute.allocate([group.size * frame.rankNumel], frame.dtype, "communication");
    if (single?.tensor !== undefined) {
      return { buffer, frame, metadata, input: single.tensor, work: allGather(group, buffer, single.tensor) };
    }
    // Straight to this rank's slice of the buffer.
    for (const [s, source] of sources.entries()) {
      const { dtype, numel, start, stride } = frame.segments[s]!;
      using target = viewOf(buffer, dtype, [numel], start + group.rank * stride);
      source.place(target);
      source.tensor?.dispose();
    }
    if (group.size === 1) return { buffer, frame, metadata, input: undefined, work: undefined };
    const input = buffer.alias([frame.rankNumel], group.rank * frame.rankNumel);
    return { buffer, frame, metadata, input, work: allGather(group, buffer, input) };
  }

  /** Gathers again from the parts that `group` keeps. The part goes to the caller still. */
  restart(part: Gathered, group: Collective): Gathering {
    const { buffer: input, frame, metadata } = part;
    const size = group.size * input.numel;
    const buffer = input.device.allocate([size], input.dtype, "communication");
    return { buffer, frame, metadata, input: input.alias(), work: allGather(group, buffer, input) };
  }

  /** This rank's part of what was gathered, when `count` neighbours keep it among them. */
  partOf({ buffer, frame, metadata }: Gathered, count: number): Gathered {
    const numel = buffer.numel / count;
    using part = buffer.alias([numel], (this.#shards.group.rank % count) * numel);
    return { buffer: buffer.device.copyOf(part, "parameter"), frame, metadata };
  }

  /** Gives every parameter its whole values, once all has arrived. The buffer goes, but for parameters that are views of it. */
  finish({ buffer, frame, metadata, input }: Gathering): void {
    input?.dispose();
    try {
      let viewed = false;
      let next = 0;
      for (const [b, bucket] of this.#shards.buckets.entries()) {
        if (bucket.extension === undefined) {
          viewed = this.#place(bucket, frame.segments[next++]!, buffer) || viewed;
          continue;
        }
        const inputs = metadata[b] as ExtensionInputs;
        this.#extend(bucket, frame.segments.slice(next, next + inputs.count), buffer, inputs);
        next += inputs.count;
      }
      if (viewed) buffer.device.backend.relabel(buffer.storage.buffer, "parameter");
    } finally {
      buffer.dispose();
    }
  }

  /** What a bucket sends. */
  #sentBy(bucket: Bucket, flat: Tensor): { inputs: readonly Source[]; metadata: unknown } {
    const { compute, parameters } = this.#shards;
    if (bucket.extension === undefined) {
      const dtype = this.#gathered(bucket.dtype);
      const lies = flat.device === compute && flat.dtype === dtype;
      const source: Source = {
        dtype,
        numel: flat.numel,
        tensor: lies ? flat.alias() : undefined,
        place: (target) => copyAcross(target, flat),
      };
      return { inputs: [source], metadata: undefined };
    }
    using shard = uploaded(flat.alias(), compute, "communication");
    const context = this.#contextOf(bucket);
    const { inputs, metadata } = bucket.extension.preAllGather(shard, context);
    if (inputs.length === 0 || inputs.some((input) => input.device !== compute)) {
      throw new ShapeError(
        `Gathering parameter "${parameters[bucket.members[0]!]!.name}" failed: its extension gave ${inputs.length} inputs, allowed are one or more, on the device of the shard`,
      );
    }
    return {
      inputs: inputs.map((tensor) => ({
        dtype: tensor.dtype,
        numel: tensor.numel,
        tensor,
        place: (target) => copyInto(target, tensor),
      })),
      metadata: { count: inputs.length, metadata } satisfies ExtensionInputs,
    };
  }

  /** Puts a bucket's parameters on the buffer. Returns whether one is a view of it. */
  #place(bucket: Bucket, segment: Segment, buffer: Tensor): boolean {
    const { parameters, group } = this.#shards;
    const { device } = buffer;
    const { dtype, start, stride } = segment;
    const moves = this.#movesOf(bucket, segment);
    using values = viewOf(buffer, dtype, [start + (group.size - 1) * stride + segment.numel], buffer.offset);
    let viewed = false;
    for (const [j, member] of bucket.members.entries()) {
      const parameter = parameters[member]!;
      const { alias, out } = moves[j]!;
      if (alias !== undefined) {
        viewed = true;
        parameter.setGathered(device, dtype, values.storage.retain(), values.offset + alias);
        continue;
      }
      using whole = device.allocate(parameter.shape, dtype, "parameter");
      device.backend.kernels.copy(values.span, whole.span, out);
      parameter.setGathered(device, dtype, whole.storage.retain(), 0);
    }
    return viewed;
  }

  /** Lets an extension make its parameter. */
  #extend(bucket: Bucket, segments: readonly Segment[], buffer: Tensor, { metadata }: ExtensionInputs): void {
    const { group, parameters } = this.#shards;
    const { device } = buffer;
    const parameter = parameters[bucket.members[0]!]!;
    const outputs = segments.map(({ dtype, numel, start, stride }) => {
      const extent = start + (group.size - 1) * stride + numel;
      using values = viewOf(buffer, dtype, [extent], buffer.offset);
      const output = device.allocate([group.size * numel], dtype, "communication");
      const box = { sizes: [group.size, numel], sourceOffset: start, sourceStrides: [stride, 1] };
      device.backend.kernels.copy(values.span, output.span, [
        { ...box, targetOffset: 0, targetStrides: [numel, 1] },
      ]);
      return output;
    });
    const whole = bucket.extension!.postAllGather(outputs, metadata, this.#contextOf(bucket));
    for (const output of outputs) output.dispose();
    if (whole.numel !== parameter.numel) {
      const given = whole.numel;
      whole.dispose();
      throw new ShapeError(
        `Gathering parameter "${parameter.name}" failed: its extension gave ${given} elements, the parameter has ${parameter.numel}`,
      );
    }
    device.backend.relabel(whole.storage.buffer, "parameter");
    parameter.setGathered(device, whole.dtype, whole.storage.retain(), whole.offset);
    whole.dispose();
  }

  #contextOf(bucket: Bucket): AllGatherContext {
    const { group, parameters, compute } = this.#shards;
    const { name, shape } = parameters[bucket.members[0]!]!;
    return { name, shape, paramDtype: this.#gathered(bucket.dtype), group, device: compute };
  }

  #gathered(dtype: DType): DType {
    return DTYPES[dtype].floating ? (this.#paramDtype ?? dtype) : dtype;
  }

  #movesOf(bucket: Bucket, place: Segment): readonly ParameterMoves[] {
    const key = `${this.#shards.buckets.indexOf(bucket)} ${place.start} ${place.stride}`;
    const known = this.#moves.get(key) ?? planMoves(bucket.shard, place).moves;
    this.#moves.set(key, known);
    return known;
  }
}

/** What a rank sends of a bucket, or of an extension's inputs. */
interface Source extends SegmentSpec {
  /** Where it lies already, on the device that computes; owned. Absent: elsewhere, or in another dtype. */
  readonly tensor: Tensor | undefined;
  /** Copies it to a tensor on the device that computes. */
  place(target: Tensor): void;
}

/** A source as a tensor of its own. */
function ownTensor({ tensor, dtype, numel, place }: Source, compute: Device): Tensor {
  if (tensor !== undefined) return tensor;
  const own = compute.allocate([numel], dtype, "parameter");
  place(own);
  return own;
}

/** What the engine keeps between an extension's two steps. */
interface ExtensionInputs {
  readonly count: number;
  readonly metadata: unknown;
}

/** What lies where: in the buffers that travel, and in what ranks own. */
import type { Collective, Work } from "../../../../core/contracts/collective.ts";
import type { DType, HostArray } from "../../../../core/contracts/dtype.ts";
import { gatherLike } from "../../../../core/engine/full-tensor.ts";
import { forEachRun } from "../../../../core/nn/init.ts";
import { type Initializer, Module, Parameter } from "../../../../core/nn/mod.ts";
import { initDeviceMesh } from "../../../../core/runtime/device-mesh.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { numelOf } from "../../../../core/tensor/shape.ts";
import type { Tensor } from "../../../../core/tensor/tensor.ts";
import { fullyShard } from "../../../../plugins/fsdp2/mod.ts";
import type { ConformanceRank } from "../rank.ts";

/** Shapes of a group's parameters. */
export interface LayoutSpec {
  readonly shapes: readonly (readonly number[])[];
  /** What gradients are reduced in. Default float32. */
  readonly reduceDtype?: DType;
}

/** What was sent and received, and what came of it. */
export interface Layout {
  /** What the gather gave, and what went into the reduction. Both empty where collectives do not see the memory. */
  readonly gathered: readonly number[];
  readonly scattered: readonly number[];
  /** What the parameters held while the group was gathered. */
  readonly values: readonly (readonly number[])[];
  /** Whole gradients. */
  readonly gradients: readonly (readonly number[])[];
  /** Extents and elements of what this rank owns, of values and of gradients. */
  readonly owned: readonly { readonly shape: readonly number[]; readonly values: readonly number[] }[];
}

/** Element i of parameter p, counted from 1 over all parameters, is its number. */
function counting(first: number): Initializer {
  return ({ shape, box, out }) =>
    forEachRun(shape, box, (start, offset, length) => {
      for (let i = 0; i < length; i++) (out as Float32Array)[offset + i] = first + start + i;
    });
}

/** Parameters, and a loss whose gradient at each is `gradientOf` of its number. */
class Numbers extends Module<[weights: readonly Tensor[]], Tensor> {
  readonly parts: readonly Parameter[];

  constructor(shapes: LayoutSpec["shapes"]) {
    super();
    let first = 1;
    this.parts = shapes.map((shape) => {
      const parameter = new Parameter(shape, counting(first));
      first += numelOf(shape);
      return parameter;
    });
    for (const [i, part] of this.parts.entries()) Object.assign(this, { [`part${i}`]: part });
  }

  override async forward(weights: readonly Tensor[]): Promise<Tensor> {
    let total: Tensor | undefined;
    for (const [i, part] of this.parts.entries()) {
      const term = ops.sum(ops.mul(part, weights[i]!));
      total = total === undefined ? term : ops.add(total, term);
    }
    return total!;
  }
}

/** The gradient of a rank at element `number` of all parameters. */
export function gradientOf(rank: number, number: number): number {
  return ((number * 7 + rank * 3) % 11) - 5;
}

/** Gathers and reduces one group. */
export async function layout(rank: ConformanceRank, { shapes, reduceDtype }: LayoutSpec): Promise<Layout> {
  const gathered: HostArray[] = [];
  const scattered: HostArray[] = [];
  const mesh = await initDeviceMesh(watched(rank.collective, gathered, scattered));
  const mpPolicy = reduceDtype === undefined ? undefined : { reduceDtype };
  const model = fullyShard(new Numbers(shapes), { mesh, mpPolicy });
  await model.to(rank.device);
  await model.unshard();
  const values: number[][] = [];
  for (const part of model.parts) values.push(Array.from(await part.data(), Number));
  const sent = gathered.splice(0);
  await rank.device.scope(async () => {
    let number = 1;
    const weights = shapes.map((shape) => {
      const elements = Float32Array.from({ length: numelOf(shape) }, () => gradientOf(rank.rank, number++));
      return rank.device.tensor(elements, { shape });
    });
    await (await model.call(weights)).backward();
  });
  const gradients: number[][] = [];
  const owned: { shape: readonly number[]; values: number[] }[] = [];
  for (const part of model.parts) {
    gradients.push(Array.from((await gatherLike(part, part.grad!, true))!, Number));
    owned.push({ shape: part.local.shape, values: Array.from(await part.local.data(), Number) });
  }
  model.dispose();
  const all = (arrays: readonly HostArray[]) => arrays.flatMap((array) => Array.from(array, Number));
  return { gathered: all(sent), scattered: all(scattered), values, gradients, owned };
}

/** A group that keeps copies of what gathers gave and of what went into reductions. */
function watched(inner: Collective, gathered: HostArray[], scattered: HostArray[]): Collective {
  const own: Partial<Collective> = {
    allGather(output, input): Work {
      const work = inner.allGather(output, input);
      const done = work.wait().then(() => void gathered.push(output.slice()));
      return { wait: () => done };
    },
    reduceScatter(output, input, op, dtype): Work {
      scattered.push(input.slice());
      return inner.reduceScatter(output, input, op, dtype);
    },
  };
  return { ...inner, ...own };
}

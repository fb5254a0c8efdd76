/** Small models for tests. */
import { Linear, Module } from "../../core/nn/mod.ts";
import * as ops from "../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";

/** One hidden layer with a residual path, so that gradients arrive on two ways. */
export class Block extends Module<[x: Tensor], Tensor> {
  readonly up: Linear;
  readonly down: Linear;

  constructor(width: number, hidden: number) {
    super();
    this.up = new Linear(width, hidden);
    this.down = new Linear(hidden, width);
  }

  override async forward(x: Tensor): Promise<Tensor> {
    return ops.add(x, await this.down.call(ops.relu(await this.up.call(x))));
  }
}

/** A stack of blocks between an input and an output layer: the root takes part with parameters of its own. */
export class Stack extends Module<[x: Tensor], Tensor> {
  readonly inner: Linear;
  readonly blocks: readonly Block[];
  readonly outer: Linear;

  constructor(options: { layers: number; features: number; width: number; hidden: number }) {
    super();
    this.inner = new Linear(options.features, options.width);
    this.blocks = Array.from({ length: options.layers }, () => new Block(options.width, options.hidden));
    this.outer = new Linear(options.width, 1);
  }

  override async forward(x: Tensor): Promise<Tensor> {
    let states = await this.inner.call(x);
    for (const block of this.blocks) states = await block.call(states);
    return await this.outer.call(states);
  }
}

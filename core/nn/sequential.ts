/**
 * Sequential: modules one after another, as `torch.nn.Sequential`. A list of modules that its owner calls itself needs no
 * class: a plain array property works.
 *
 * @module
 */
import type { Tensor } from "../tensor/tensor.ts";
import { Module } from "./module.ts";

/** Feeds each module's result to the next. The modules are its properties `0`, `1`, ... and named so. */
export class Sequential extends Module<[Tensor], Tensor> {
  [index: number]: Module<[Tensor], Tensor>;
  readonly length: number;

  constructor(...layers: readonly Module<[Tensor], Tensor>[]) {
    super();
    this.length = layers.length;
    for (const [i, layer] of layers.entries()) this[i] = layer;
  }

  override async forward(x: Tensor): Promise<Tensor> {
    let current = x;
    for (let i = 0; i < this.length; i++) current = await this[i]!.call(current);
    return current;
  }
}

/**
 * Rotary position embedding: the angles of every place, made once for a device and for about as many places as were needed
 * so far, as Hugging Face's models keep them in buffers.
 *
 * @module
 */
import { accumulatorDType, type DType, type HostArray, newHostArray } from "../contracts/dtype.ts";
import { rotary } from "../tensor/ops/rotary.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Module } from "./module.ts";

/** Cosine and sine of angles, [length, dim / 2]. */
interface Tables {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** `1 / theta^(2 i / dim)` for i below `dim / 2`, rounded as PyTorch rounds them. */
export function rotaryFrequencies(dim: number, theta = 10_000): Float32Array {
  return Float32Array.from({ length: Math.floor(dim / 2) }, (_, i) =>
    Math.fround(1 / Math.fround(theta ** Math.fround((2 * i) / dim))),
  );
}

/** Rotates heads [..., time, heads, dim] by their place in time times each frequency. It has no parameters. */
export class RotaryEmbedding extends Module<[Tensor], Tensor> {
  readonly #frequencies: Float32Array;
  #tables: Tables | undefined;

  /** @param frequencies angle from one place to the next, for each of the `dim / 2` pairs of a head. */
  constructor(frequencies: Float32Array) {
    super();
    this.#frequencies = frequencies;
  }

  override forward(heads: Tensor): Tensor {
    const { cos, sin } = this.#tablesFor(heads);
    return rotary(heads, cos, sin);
  }

  #tablesFor(heads: Tensor): Tables {
    const time = heads.shape.at(-3) ?? 0;
    const dtype = accumulatorDType(heads.dtype);
    const held = this.#tables?.cos;
    if (held?.owned && held.device === heads.device && held.dtype === dtype && held.shape[0]! >= time) {
      return this.#tables!;
    }
    // The backward pass of earlier rotations holds on to what it needs of the old ones.
    this.#tables?.cos.dispose();
    this.#tables?.sin.dispose();
    // A text that grows by a token at a time makes few of them.
    const length = 2 ** Math.ceil(Math.log2(Math.max(1, time)));
    const table = (of: (angle: number) => number): Tensor => {
      const tensor = heads.device.allocate([length, this.#frequencies.length], dtype);
      heads.device.backend.write(tensor.span, angles(this.#frequencies, length, dtype, of));
      return tensor;
    };
    this.#tables = { cos: table(Math.cos), sin: table(Math.sin) };
    return this.#tables;
  }
}

/** `of(time * frequency)`, the angle rounded to float32 as PyTorch does, on which models were trained. */
function angles(
  frequencies: Float32Array,
  length: number,
  dtype: DType,
  of: (angle: number) => number,
): HostArray {
  const out = newHostArray(dtype, length * frequencies.length);
  for (let t = 0, at = 0; t < length; t++) {
    for (const frequency of frequencies) out[at++] = of(Math.fround(t * frequency));
  }
  return out;
}

/**
 * Rotary positions (Su et al., "RoFormer", 2021): queries and keys turned by angles that grow with their place, so that
 * their products depend on how far apart they are. Halves of a head are paired, as in Hugging Face's models.
 *
 * @module
 */
import { accumulatorDType } from "../../contracts/dtype.ts";
import { ShapeError } from "../../contracts/errors.ts";
import { numelOf, sameShape, showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { gradientSlot } from "./in-place.ts";

/**
 * Rotates heads `x` [..., time, heads, dim]: with a and b the halves of a head, gives `a cos - b sin` and `b cos + a sin`.
 *
 * @param cos of each time's angles, [length, dim / 2] with `length >= time`; float32 when `x` is 16-bit.
 * @param sin the same.
 * @throws ShapeError when shapes or dtypes do not fit.
 */
export function rotary(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const [time, heads, headDim] = x.shape.slice(-3);
  if (
    x.shape.length < 3 ||
    headDim! % 2 !== 0 ||
    cos.shape.length !== 2 ||
    cos.shape[0]! < time! ||
    cos.shape[1] !== headDim! / 2 ||
    !sameShape(cos.shape, sin.shape) ||
    [cos, sin].some((table) => table.dtype !== accumulatorDType(x.dtype))
  ) {
    const given = [x, cos, sin].map((t) => `${t.dtype} ${showShape(t.shape)}`).join(", ");
    throw new ShapeError(
      `rotary() failed: ${given}, allowed are [..., time, heads, dim] with an even dim, and two of [time or more, dim / 2] in float32 for 16-bit heads, else in their dtype`,
    );
  }
  const turn = (from: Tensor, out: Tensor, tables: readonly Tensor[], inverse: boolean): Tensor => {
    from.device.backend.kernels.rotary({
      x: from.span,
      out: out.span,
      cos: tables[0]!.span,
      sin: tables[1]!.span,
      rows: numelOf(from.shape.slice(0, -2)),
      length: time!,
      heads: heads!,
      headDim: headDim!,
      inverse,
    });
    return out;
  };
  const out = turn(x, x.device.result(x.shape, x.dtype), [cos, sin], false);
  return x.device.record(out, {
    op: "rotary",
    inputs: [x],
    saved: [cos, sin],
    backward: (gradient, tables) => [
      turn(gradient, gradientSlot(gradient), tables as readonly Tensor[], true),
    ],
  });
}

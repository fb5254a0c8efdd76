// Gated units over contiguous float32: an activated gate times a value.

import { apply, GELU_TANH, gateOf, gateSlope, SILU } from "./functions";
import { loadRest, storeRest } from "./vector";

// @ts-ignore: decorator
@inline
function forward(op: i32, gate: usize, x: usize, out: usize, n: i32): void {
  const whole = <usize>(n & ~3) << 2;
  for (let o: usize = 0; o < whole; o += 16) {
    v128.store(out + o, f32x4.mul(apply(op, v128.load(gate + o)), v128.load(x + o)));
  }
  const rest = n & 3;
  if (rest) {
    const zero = f32x4.splat(0);
    const y = apply(op, loadRest(gate + whole, rest, zero));
    storeRest(out + whole, rest, f32x4.mul(y, loadRest(x + whole, rest, zero)));
  }
}

/** `op` is silu or geluTanh. */
export function gated(op: i32, gate: usize, x: usize, out: usize, n: i32): void {
  if (op == SILU) forward(SILU, gate, x, out, n);
  else forward(GELU_TANH, gate, x, out, n);
}

// @ts-ignore: decorator
@inline
function backward(op: i32, gate: usize, x: usize, gradient: usize, dGate: usize, dX: usize, n: i32): void {
  const zero = f32x4.splat(0);
  const stride = <usize>n << 2;
  for (let o: usize = 0; o < stride; o += 16) {
    const rest = n - <i32>(o >> 2);
    const whole = rest >= 4;
    const g = whole ? v128.load(gate + o) : loadRest(gate + o, rest, zero);
    const value = whole ? v128.load(x + o) : loadRest(x + o, rest, zero);
    const d = whole ? v128.load(gradient + o) : loadRest(gradient + o, rest, zero);
    const factor = gateOf(op, g);
    if (dGate) put(dGate + o, rest, f32x4.mul(f32x4.mul(d, value), gateSlope(op, g, factor)));
    if (dX) put(dX + o, rest, f32x4.mul(d, f32x4.mul(g, factor)));
  }
}

// @ts-ignore: decorator
@inline
function put(to: usize, count: i32, x: v128): void {
  if (count >= 4) v128.store(to, x);
  else storeRest(to, count, x);
}

/** `dGate` or `dX` is 0 when it is not wanted. */
export function gatedBackward(
  op: i32, gate: usize, x: usize, gradient: usize, dGate: usize, dX: usize, n: i32,
): void {
  if (op == SILU) backward(SILU, gate, x, gradient, dGate, dX, n);
  else backward(GELU_TANH, gate, x, gradient, dGate, dX, n);
}

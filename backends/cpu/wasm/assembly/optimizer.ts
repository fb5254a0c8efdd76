// AdamW over a run of float32.

import { fma, loadRest, storeRest } from "./vector";

/** `decay` is 1 - lr * weightDecay, `rate` lr / (1 - beta1^step), `correction` 1 / sqrt(1 - beta2^step). */
export function adamw(
  parameter: usize, gradient: usize, expAvg: usize, expAvgSq: usize, n: i32,
  decay: f32, rate: f32, correction: f32, beta1Rest: f32, beta2: f32, beta2Rest: f32, eps: f32,
): void {
  const d = f32x4.splat(decay), minusRate = f32x4.splat(-rate), c = f32x4.splat(correction);
  const b1 = f32x4.splat(beta1Rest), b2 = f32x4.splat(beta2), b2r = f32x4.splat(beta2Rest), e = f32x4.splat(eps);
  const zero = f32x4.splat(0);
  const whole = <usize>(n & ~3) << 2;
  const rest = n & 3;
  for (let o: usize = 0; o < whole + (rest ? 16 : 0); o += 16) {
    const last = o == whole;
    const g = last ? loadRest(gradient + o, rest, zero) : v128.load(gradient + o);
    let m = last ? loadRest(expAvg + o, rest, zero) : v128.load(expAvg + o);
    let v = last ? loadRest(expAvgSq + o, rest, zero) : v128.load(expAvgSq + o);
    let p = last ? loadRest(parameter + o, rest, zero) : v128.load(parameter + o);
    m = fma(b1, f32x4.sub(g, m), m);
    v = fma(b2, v, f32x4.mul(f32x4.mul(b2r, g), g));
    const step = f32x4.div(m, fma(f32x4.sqrt(v), c, e));
    p = fma(minusRate, step, f32x4.mul(p, d));
    if (last) {
      storeRest(expAvg + o, rest, m);
      storeRest(expAvgSq + o, rest, v);
      storeRest(parameter + o, rest, p);
    } else {
      v128.store(expAvg + o, m);
      v128.store(expAvgSq + o, v);
      v128.store(parameter + o, p);
    }
  }
}

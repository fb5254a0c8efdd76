// Rotary positions over rows of heads of float32.

/** `half` counts pairs of a head; `sign` is -1 for the inverse. Row r takes angles `r % length`. */
export function rotary(
  x: usize, out: usize, cos: usize, sin: usize, rows: i32, length: i32, heads: i32, half: i32, sign: f32,
): void {
  const far = <usize>half << 2;
  const whole = <usize>(half & ~3) << 2;
  const signs = f32x4.splat(sign);
  for (let row = 0; row < rows; row++) {
    const angles = <usize>(row % length) * far;
    const c = cos + angles, s = sin + angles;
    for (let head = 0; head < heads; head++, x += 2 * far, out += 2 * far) {
      let o: usize = 0;
      for (; o < whole; o += 16) {
        const a = v128.load(x + o), b = v128.load(x + far + o);
        const cosine = v128.load(c + o), sine = f32x4.mul(v128.load(s + o), signs);
        v128.store(out + o, f32x4.sub(f32x4.mul(a, cosine), f32x4.mul(b, sine)));
        v128.store(out + far + o, f32x4.add(f32x4.mul(b, cosine), f32x4.mul(a, sine)));
      }
      for (; o < far; o += 4) {
        const a = load<f32>(x + o), b = load<f32>(x + far + o);
        const cosine = load<f32>(c + o), sine = load<f32>(s + o) * sign;
        store<f32>(out + o, a * cosine - b * sine);
        store<f32>(out + far + o, b * cosine + a * sine);
      }
    }
  }
}

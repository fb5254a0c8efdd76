/** float8_e4m3fn by definition: the table of its values, and the nearest of them by looking at every one. */

/** Not a number, without a sign. */
const NOT_A_NUMBER = 0x7f;

function valueOfByte(code: number): number {
  const sign = code >= 128 ? -1 : 1;
  const [exponent, fraction] = [Math.floor(code / 8) % 16, code % 8];
  if (exponent === 15 && fraction === 7) return Number.NaN;
  return sign * (exponent === 0 ? fraction / 8 : 1 + fraction / 8) * 2 ** (Math.max(exponent, 1) - 7);
}

/** The value of every byte. */
export const E4M3_VALUES: readonly number[] = Array.from({ length: 256 }, (_, code) => valueOfByte(code));

/** The byte of the nearest value, what is too large taken as the largest; of two that are as near, the even one. */
export function nearestE4M3(x: number): number {
  if (Number.isNaN(x)) return NOT_A_NUMBER;
  const size = Math.min(Math.abs(x), 448);
  let best = 0;
  for (let code = 1; code < NOT_A_NUMBER; code++) {
    const [distance, least] = [Math.abs(E4M3_VALUES[code]! - size), Math.abs(E4M3_VALUES[best]! - size)];
    if (distance < least || (distance === least && code % 2 === 0)) best = code;
  }
  return best + (x < 0 || Object.is(x, -0) ? 128 : 0);
}

/** What numbers become that travel as bytes with one scale. */
export function throughE4M3(values: readonly number[], amax: number, powerOfTwo: boolean): number[] {
  const exact = 448 / Math.max(amax, 1e-12);
  const scale = powerOfTwo ? 2 ** Math.floor(Math.log2(exact)) : Math.fround(exact);
  return values.map((x) => Math.fround(E4M3_VALUES[nearestE4M3(Math.fround(x * scale))]! / scale));
}

/** The largest magnitude. */
export function amaxOf(values: readonly number[]): number {
  return values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

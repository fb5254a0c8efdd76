/**
 * Conformance of float8_e4m3fn. The oracle is the table of all 256 values: a number's byte is that of the nearest, by
 * looking at every one.
 *
 * @module
 */
import { expect, test } from "bun:test";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { nearestE4M3 as nearest, E4M3_VALUES as VALUES } from "../../support/e4m3.ts";
import { Case, type Suite } from "./harness.ts";

/** Around every value and every middle between two: they, and the float32s next to them. */
function edges(): number[] {
  const bits = new Uint32Array(1);
  const float = new Float32Array(bits.buffer);
  const values = VALUES.slice(0, 127);
  const middles = values.slice(1).map((value, i) => (value + values[i]!) / 2);
  const around = [...values, ...middles, 464, 480, 1e4, 2 ** -20].flatMap((value) => {
    float[0] = value;
    const at = bits[0]!;
    return [-1, 0, 1].flatMap((step) => {
      bits[0] = Math.max(0, at + step);
      return [float[0]!, -float[0]!];
    });
  });
  return [...around, 0, -0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN];
}

/** Random floats over the whole range of exponents that matter, and beyond it. */
function floats(test: Case, length: number): number[] {
  return Array.from({ length }, () => {
    const size = 2 ** (test.uniform() * 28 - 16);
    return Math.fround(test.uniform() < 0.5 ? -size : size);
  });
}

export function float8Conformance(suite: Suite): void {
  test("toFloat8 gives the nearest byte of every value, every middle and their neighbours, and saturates", async () => {
    const test = new Case(suite, 1);
    const values = edges();
    const out = test.out("uint8", values.length);
    test.backend.kernels.toFloat8(test.put("float32", values), test.put("float32", [1]), out, values.length);
    const got = await test.get(out);
    for (const [i, value] of values.entries()) expect([value, got[i]]).toEqual([value, nearest(value)]);
    await test.finish();
  });

  test("fromFloat8 gives the values of all bytes, and toFloat8 the bytes again", async () => {
    const test = new Case(suite, 2);
    const codes = VALUES.map((_, code) => code);
    const [values, again] = [test.out("float32", 256), test.out("uint8", 256)];
    const one = test.put("float32", [1]);
    test.backend.kernels.fromFloat8(test.put("uint8", codes), one, values, 256);
    expect(await test.get(values)).toEqual([...VALUES]);
    test.backend.kernels.toFloat8(values, one, again, 256);
    // Not a number has no sign.
    expect(await test.get(again)).toEqual(codes.map((code) => (code === 0xff ? 0x7f : code)));
    await test.finish();
  });

  test("toFloat8 and fromFloat8 scale each row by its own, the last one short", async () => {
    for (let seed = 0; seed < 24; seed++) {
      const test = new Case(suite, 300 + seed);
      const columns = test.integer(1, 70);
      const length = seed === 0 ? 0 : seed === 1 ? 40_000 : test.integer(1, 700);
      const rows = Math.ceil(length / columns);
      const values = floats(test, length);
      const scales = Array.from({ length: rows }, () => Math.fround(2 ** (test.uniform() * 4 - 2)));
      const [x, scale] = [test.put("float32", values), test.put("float32", scales)];
      const [codes, back] = [test.out("uint8", length), test.out("float32", length)];
      test.backend.kernels.toFloat8(x, scale, codes, columns);
      const of = (i: number): number => scales[Math.floor(i / columns)]!;
      const want = values.map((value, i) => nearest(Math.fround(value * of(i))));
      expect(await test.get(codes), `seed ${test.seed}`).toEqual(want);
      test.backend.kernels.fromFloat8(codes, scale, back, columns);
      const given = want.map((code, i) => VALUES[code]! / of(i));
      await test.expectClose(back, given, "fromFloat8", { tolerance: 1e-6, scale: given.map(Math.abs) });
      await test.finish();
    }
  });

  test("float8Scale brings the largest magnitude to 448, or a power of two next below, in place too", async () => {
    const test = new Case(suite, 3);
    const random = Array.from({ length: 300 }, () => Math.fround(2 ** (test.uniform() * 60 - 36)));
    const exact = [448, 1.75, 1.7500001, 1.7499999, 3.5, 1, 2 ** -30, 2 ** 40, 3.4e38].map(Math.fround);
    const amax = [...random, ...exact, 0, 1e-20, Number.POSITIVE_INFINITY];
    const want = amax.map((x) => 448 / Math.max(x, 1e-12));
    const given = test.put("float32", amax);
    const [out, powers] = [test.out("float32", amax.length), test.out("float32", amax.length)];
    test.backend.kernels.float8Scale(given, out, false);
    await test.expectClose(out, want, "float8Scale", { tolerance: 1e-6, scale: want.map(Math.abs) });
    test.backend.kernels.float8Scale(given, powers, true);
    const below = (scale: number): number => {
      let power = 2 ** 127;
      while (power > scale) power /= 2;
      return power;
    };
    expect(await test.get(powers)).toEqual(want.map((scale) => (scale === 0 ? 0 : below(scale))));
    test.backend.kernels.float8Scale(given, given, true);
    expect(await test.get(given)).toEqual(await test.get(powers));
    await test.finish();
  });

  test("float8: what is not a number stays so through scale, bytes and back", async () => {
    const test = new Case(suite, 4);
    const scale = test.put("float32", [Number.NaN]);
    for (const powerOfTwo of [false, true]) test.backend.kernels.float8Scale(scale, scale, powerOfTwo);
    const [codes, values] = [test.out("uint8", 3), test.out("float32", 3)];
    test.backend.kernels.toFloat8(test.put("float32", [1, 0, -2]), scale, codes, 3);
    expect(await test.get(codes)).toEqual([0x7f, 0x7f, 0x7f]);
    test.backend.kernels.fromFloat8(test.put("uint8", [0, 1, 2]), scale, values, 3);
    expect(await test.get(values)).toEqual([Number.NaN, Number.NaN, Number.NaN]);
    await test.finish();
  });

  test("float8 kernels refuse other dtypes, other lengths and too few scales", async () => {
    const test = new Case(suite, 5);
    const [floats, bytes] = [test.put("float32", [1, 2, 3, 4]), test.put("uint8", [1, 2, 3, 4])];
    const [one, two] = [test.put("float32", [1]), test.put("float32", [1, 1])];
    const { float8Scale, toFloat8, fromFloat8 } = test.backend.kernels;
    for (const call of [
      () => float8Scale(floats, one, false),
      () => float8Scale(bytes, bytes, false),
      () => toFloat8(floats, one, bytes, 3),
      () => toFloat8(floats, two, test.out("uint8", 5), 4),
      () => toFloat8(bytes, one, bytes, 4),
      () => toFloat8(floats, one, floats, 4),
      () => fromFloat8(bytes, one, floats, 3),
      () => fromFloat8(floats, one, floats, 4),
      () => fromFloat8(bytes, one, bytes, 4),
      () => fromFloat8(bytes, bytes, floats, 4),
    ]) {
      expect(call).toThrow(ShapeError);
    }
    await test.finish();
  });
}

/**
 * What the kernel conformance tests share: seeded random data, guarded and poisoned spans, and comparisons that say
 * which seed failed.
 *
 * @module
 */
import { expect } from "bun:test";
import type { Backend, Span } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType, type HostArray, newHostArray } from "../../../core/contracts/dtype.ts";

/** Set `FSDP_TEST_SEED` to run the random cases of a failure again, or others. */
const BASE_SEED = Number(process.env.FSDP_TEST_SEED ?? 20260);

/** Floats that kernels compute in. */
export type FloatDType = "float32" | "float64" | "float16" | "bfloat16";

/** Largest relative error of rounding to a dtype. */
export const UNIT: Readonly<Record<FloatDType, number>> = {
  float64: 2 ** -53,
  float32: 2 ** -24,
  float16: 2 ** -11,
  bfloat16: 2 ** -8,
};

/** Whether results of a dtype are computed in float32 and rounded once. */
export function isHalf(dtype: DType): dtype is "float16" | "bfloat16" {
  return dtype === "float16" || dtype === "bfloat16";
}

/** The number of a dtype that is nearest to `value`; of integers, that towards zero. */
export function rounded(dtype: DType, value: number): number {
  if (dtype === "float32") return Math.fround(value);
  if (dtype === "float16") return Math.f16round(value);
  if (dtype === "bfloat16") return fromBfloat16(nearestBfloat16(value));
  if (dtype === "float64") return value;
  // Integers have no negative zero.
  return dtype === "bool" ? Number(value !== 0) : Math.trunc(value) + 0;
}

/** The bfloat16 nearest to a float32, by comparing the two candidates, as its bits. */
function nearestBfloat16(value: number): number {
  const float = new Float32Array([value]);
  const bits = new Uint32Array(float.buffer)[0]!;
  if (Number.isNaN(float[0]!)) return 0x7fc0;
  const low = bits >>> 16;
  const gap = bits & 0xffff;
  if (gap > 0x8000 || (gap === 0x8000 && low % 2 === 1)) return low + 1;
  return low;
}

/** The value of bfloat16 bits. */
export function fromBfloat16(bits: number): number {
  return new Float32Array(new Uint32Array([bits << 16]).buffer)[0]!;
}

/** What a family of tests is given. */
export interface Suite {
  /** The backend, once tests run. */
  backend(): Backend;
  /** Dtypes to compute in. */
  readonly dtypes: readonly FloatDType[];
  /** Dtypes to store, copy and convert. */
  readonly storage: readonly DType[];
  /** What every tolerance is multiplied by. */
  readonly slack: number;
  /** Elements on either side of a span that no kernel may touch; they decide how spans are aligned. */
  readonly guard: number;
}

/** A random case: its numbers follow from the seed alone. */
export class Case {
  readonly seed: number;
  readonly backend: Backend;
  readonly #slack: number;
  readonly #guard: number;
  #state: number;
  readonly #spans: Span[] = [];

  constructor(suite: Suite, seed: number) {
    this.backend = suite.backend();
    this.#slack = suite.slack;
    this.#guard = suite.guard;
    this.seed = seed;
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 1): mulberry32. */
  uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer in [low, high]. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.uniform() * (high - low + 1));
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.integer(0, choices.length - 1)]!;
  }

  /** An extent: often 0, 1 or around the widths at which kernels change course. */
  extent(limit = 140): number {
    const interesting = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129];
    const size = this.uniform() < 0.5 ? this.pick(interesting) : this.integer(1, limit);
    return Math.min(size, limit);
  }

  /** Numbers in [low, high), already rounded to the dtype. */
  numbers(dtype: FloatDType, length: number, low = -3, high = 3): number[] {
    return Array.from({ length }, () => {
      const x = low + (high - low) * this.uniform();
      return rounded(dtype, x);
    });
  }

  /** A span that holds `values`, inside a buffer with guards around it. */
  put(dtype: DType, values: ArrayLike<number>): Span {
    const span = this.#span(dtype, values.length);
    const host = newHostArray(dtype, values.length);
    for (let i = 0; i < values.length; i++)
      host[i] =
        host instanceof BigInt64Array
          ? BigInt(values[i]!)
          : dtype === "bfloat16"
            ? nearestBfloat16(values[i]!)
            : values[i]!;
    this.backend.write(span, host);
    return span;
  }

  /** A span for a result: poisoned, so that an element that is not written shows. */
  out(dtype: DType, length: number): Span {
    return this.#span(dtype, length);
  }

  /** The elements of a span as numbers. */
  async get(span: Span): Promise<number[]> {
    const values = Array.from((await this.backend.read(span)) as Float64Array, Number);
    return span.dtype === "bfloat16" ? values.map(fromBfloat16) : values;
  }

  /**
   * Fails unless a span holds `want` within `tolerance * (1 + scale)`, `scale` being |want| unless given; results in 16
   * bits may be rounded beside that, unless `tolerance` is 0.
   */
  async expectClose(
    span: Span,
    want: ArrayLike<number>,
    what: string,
    options: Closeness = {},
  ): Promise<void> {
    const got = await this.get(span);
    const tolerance = options.tolerance ?? (span.dtype === "float64" ? 1e-12 : 4e-6);
    const half = isHalf(span.dtype) && tolerance > 0;
    expect(got.length, `${what}, seed ${this.seed}: length`).toBe(want.length);
    for (let i = 0; i < want.length; i++) {
      const wanted = want[i]!;
      const bound =
        this.#slack * tolerance * (1 + (options.scale?.[i] ?? Math.abs(wanted))) +
        (half ? UNIT[span.dtype as FloatDType] * Math.abs(wanted) : 0);
      const same = Object.is(got[i], wanted) || got[i] === wanted;
      if (same || Math.abs(got[i]! - wanted) <= bound) continue;
      expect.unreachable(
        `${what}, seed ${this.seed}: element ${i} is ${got[i]}, wanted ${wanted} within ${bound}`,
      );
    }
  }

  /** Fails when something was written beside a span; frees all. */
  async finish(): Promise<void> {
    for (const span of this.#spans) {
      const { buffer, dtype, offset, length } = span;
      const total = length + 2 * this.#guard;
      const whole = await this.backend.read({ buffer, dtype, offset: 0, length: total });
      const poison = poisoned(dtype, 1)[0]!;
      for (let i = 0; i < total; i++) {
        if (i >= offset && i < offset + length) continue;
        expect(
          Object.is(whole[i], poison),
          `seed ${this.seed}: element ${i - offset} of ${length} was written`,
        ).toBe(true);
      }
    }
    for (const { buffer } of this.#spans) this.backend.release(buffer);
  }

  #span(dtype: DType, length: number): Span {
    const total = length + 2 * this.#guard;
    const buffer = this.backend.allocate(total * DTYPES[dtype].bytes, "activation");
    this.backend.write({ buffer, dtype, offset: 0, length: total }, poisoned(dtype, total));
    const span = { buffer, dtype, offset: this.#guard, length };
    this.#spans.push(span);
    return span;
  }
}

/** How close results must be. */
export interface Closeness {
  readonly tolerance?: number;
  /** Magnitude of what went into each element, where cancellation makes the result smaller. */
  readonly scale?: ArrayLike<number>;
}

function poisoned(dtype: DType, length: number): HostArray {
  const host = newHostArray(dtype, length);
  if (host instanceof BigInt64Array) host.fill(-77n);
  else if (DTYPES[dtype].floating && dtype !== "bfloat16") (host as Float32Array).fill(Number.NaN);
  else (host as Uint8Array).fill(dtype === "bfloat16" ? 0x7fc0 : 77);
  return host;
}

/** Runs `count` cases of a kernel for every dtype. */
export async function cases(
  suite: Suite,
  count: number,
  body: (test: Case, dtype: FloatDType, index: number) => Promise<void>,
): Promise<void> {
  for (const dtype of suite.dtypes) {
    for (let index = 0; index < count; index++) {
      const test = new Case(suite, BASE_SEED + 7919 * index);
      await body(test, dtype, index);
      await test.finish();
    }
  }
}

/** Row-major strides. */
export function contiguous(sizes: readonly number[]): number[] {
  const strides: number[] = [];
  let stride = 1;
  for (let d = sizes.length - 1; d >= 0; d--) {
    strides.unshift(stride);
    stride *= sizes[d]!;
  }
  return strides;
}

/** All indices of a box in row-major order. */
export function* indicesOf(sizes: readonly number[]): Generator<number[]> {
  const total = sizes.reduce((a, b) => a * b, 1);
  for (let n = 0; n < total; n++) {
    const index: number[] = [];
    let rest = n;
    for (let d = sizes.length - 1; d >= 0; d--) {
      index.unshift(rest % sizes[d]!);
      rest = Math.floor(rest / sizes[d]!);
    }
    yield index;
  }
}

/** Offset of an index by strides. */
export function dot(index: readonly number[], strides: readonly number[]): number {
  return index.reduce((sum, i, d) => sum + i * strides[d]!, 0);
}

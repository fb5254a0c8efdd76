/**
 * What kernels see of the device: one flat memory, and spans resolved to typed arrays or byte addresses in it.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { DType, HostArray } from "../../../core/contracts/dtype.ts";
import { DeviceError, ShapeError } from "../../../core/contracts/errors.ts";
import { isHalf } from "../../../core/runtime/half/plain.ts";

/** Arrays that plain kernels compute on. */
export type Floats = Float32Array | Float64Array;

/** The device's memory. Spans are checked: of this device, not released, within their buffer. */
export interface Heap {
  /** The span's live elements. */
  view(span: Span): HostArray;
  /** The span's first byte. */
  address(span: Span): number;
  /** Live elements at a byte address. */
  at(dtype: DType, address: number, length: number): HostArray;
  /** The whole memory as float32, for kernels that index it by address / 4. */
  float32(): Float32Array;
  /** The whole memory as float64. */
  float64(): Float64Array;
  /**
   * The address of `bytes` bytes for use within one kernel call. A later call may give the same bytes, or move them.
   *
   * @throws DeviceError when there is no room.
   */
  scratch(bytes: number): number;
  /**
   * `length` float32 for use by kernels that call others meanwhile, which take `scratch` for themselves. Counted in no
   * category. A later call may give the same elements, or move them.
   *
   * @throws DeviceError when there is no room.
   */
  workspace(length: number): Span;
}

/** Dtypes that kernels compute in, 16-bit ones by way of float32: see half/. */
export const COMPUTE_DTYPES: readonly DType[] = ["float32", "float64", "float16", "bfloat16"];

/** The span as floats to compute on. @throws DeviceError for dtypes that kernels do not compute in. */
export function floats(heap: Heap, kernel: string, span: Span): Floats {
  const view = heap.view(span);
  if (view instanceof Float32Array || view instanceof Float64Array) return view;
  throw new DeviceError(
    `cpu ${kernel}: ${span.dtype} is not computed in, allowed: ${COMPUTE_DTYPES.join(", ")}`,
  );
}

/** The span's elements to move as they are: of 16-bit floats the bits. @throws DeviceError as {@link floats}. */
export function elements(heap: Heap, kernel: string, span: Span): Floats | Uint16Array {
  if (!isHalf(span.dtype)) return floats(heap, kernel, span);
  return heap.at("bfloat16", heap.address(span), span.length) as Uint16Array;
}

/** Like {@link floats}, of at least `length` elements. @throws ShapeError when the span is shorter. */
export function floatsOf(heap: Heap, kernel: string, span: Span, length: number): Floats {
  requireLength(kernel, span, length);
  return floats(heap, kernel, span);
}

/** @throws ShapeError when the span has fewer than `length` elements. */
export function requireLength(kernel: string, span: Span, length: number): void {
  if (span.length < length) {
    throw new ShapeError(`cpu ${kernel}: a span of ${span.length} elements was given, ${length} are needed`);
  }
}

/** @throws ShapeError unless all spans have one dtype and length. */
export function requireSame(kernel: string, spans: readonly Span[]): void {
  const [first] = spans;
  for (const span of spans) {
    if (span.dtype !== first!.dtype || span.length !== first!.length) {
      const given = spans.map((s) => `${s.dtype}[${s.length}]`).join(", ");
      throw new ShapeError(`cpu ${kernel}: operands differ: ${given}, allowed: one dtype and length`);
    }
  }
}

/** The first `length` or more indices of an int32 or int64 span. @throws ShapeError for other dtypes. */
export function indices(heap: Heap, kernel: string, span: Span, length: number): Int32Array | number[] {
  requireLength(kernel, span, length);
  const view = heap.view(span);
  if (view instanceof Int32Array) return view;
  if (view instanceof BigInt64Array) return Array.from(view, Number);
  throw new ShapeError(`cpu ${kernel}: indices are ${span.dtype}, allowed: int32, int64`);
}

/**
 * Checks and arithmetic on spans that kernels share.
 *
 * @module
 */
import type { Span } from "../../core/contracts/backend.ts";
import { DTYPES } from "../../core/contracts/dtype.ts";
import { DeviceError, ShapeError } from "../../core/contracts/errors.ts";
import type { Gpu } from "./dispatch.ts";

/** Float types of WGSL. */
export type FloatType = "f32" | "f16";

/** The span's type in kernels. @throws DeviceError for dtypes that kernels do not compute in on this device. */
export function floatType(gpu: Gpu, kernel: string, span: Span): FloatType {
  if (span.dtype === "float32") return "f32";
  if (span.dtype === "float16" && gpu.features.f16) return "f16";
  throw new DeviceError(
    `webgpu ${kernel}: ${span.dtype} is not computed in, allowed: float32${gpu.features.f16 ? ", float16" : ""}`,
  );
}

/** The type of spans that must have one. @throws ShapeError when they differ. */
export function commonType(gpu: Gpu, kernel: string, spans: readonly Span[]): FloatType {
  const [first] = spans;
  const other = spans.find((span) => span.dtype !== first!.dtype);
  if (other !== undefined) {
    throw new ShapeError(
      `webgpu ${kernel}: operands are ${first!.dtype} and ${other.dtype}, allowed: one dtype`,
    );
  }
  return floatType(gpu, kernel, first!);
}

/** @throws ShapeError when the span has fewer than `length` elements. */
export function requireLength(kernel: string, span: Span, length: number): void {
  if (span.length < length) {
    throw new ShapeError(
      `webgpu ${kernel}: a span of ${span.length} elements was given, ${length} are needed`,
    );
  }
}

/** @throws ShapeError unless all spans have one dtype and length. */
export function requireSame(kernel: string, spans: readonly Span[]): void {
  const [first] = spans;
  for (const span of spans) {
    if (span.dtype !== first!.dtype || span.length !== first!.length) {
      const given = spans.map((s) => `${s.dtype}[${s.length}]`).join(", ");
      throw new ShapeError(`webgpu ${kernel}: operands differ: ${given}, allowed: one dtype and length`);
    }
  }
}

/** A part of a span. */
export function part(span: Span, start: number, length: number): Span {
  return { ...span, offset: span.offset + start, length };
}

/** Elements before the span since the last multiple of four: where vectors of four begin. */
export function leadOf(span: Span): number {
  return span.offset % 4;
}

/** Whether vectors of four begin at the same elements of all spans. */
export function congruent(spans: readonly Span[]): boolean {
  return spans.every((span) => leadOf(span) === leadOf(spans[0]!));
}

/** Bytes that a window may have to show beside a span. */
const SLACK = 1024;

/** Units of `bytes` bytes that a binding holds: work on more goes in pieces. */
export function unitsPerBinding(gpu: Gpu, bytes: number): number {
  return Math.max(1, Math.floor((gpu.limits.maxBindingBytes - SLACK) / Math.max(1, bytes)));
}

/** Calls `work` for pieces of `count` elements (multiples of four but the last) that fit bindings of `spans`. */
export function inPieces(
  gpu: Gpu,
  spans: readonly Span[],
  count: number,
  work: (start: number, length: number) => void,
): void {
  const widest = Math.max(...spans.map(({ dtype }) => DTYPES[dtype].bytes));
  const most = Math.max(4, Math.floor(unitsPerBinding(gpu, widest) / 4) * 4);
  for (let start = 0; start < count; start += most) work(start, Math.min(most, count - start));
}

/** Whether indices have 64 bits. @throws ShapeError unless they are int32 or int64. */
export function indexIsLong(kernel: string, span: Span): boolean {
  if (span.dtype === "int64") return true;
  if (span.dtype === "int32") return false;
  throw new ShapeError(`webgpu ${kernel}: indices are ${span.dtype}, allowed: int32, int64`);
}

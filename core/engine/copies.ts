/**
 * Copies and views that the engine makes of its own buffers: in another dtype, on another device, of a part.
 *
 * @module
 */

import type { DType } from "../contracts/dtype.ts";
import { ConfigError } from "../contracts/errors.ts";
import type { CopyBox } from "../contracts/kernels.ts";
import type { MemoryCategory } from "../contracts/memory.ts";
import type { Device } from "../tensor/device.ts";
import type { Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";

/** The elements in another dtype, owned by the caller: an alias where nothing changes. */
export function converted(
  source: Tensor,
  dtype: DType,
  category: MemoryCategory,
  shape: Shape = source.shape,
): Tensor {
  if (source.dtype === dtype) return source.alias(shape);
  const out = source.device.allocate(shape, dtype, category);
  source.device.backend.kernels.cast(source.span, out.span);
  return out;
}

/** Memory of a buffer seen as elements of another dtype, owned by the caller; `offset` counts these from the buffer's begin. */
export function viewOf(buffer: Tensor, dtype: DType, shape: Shape, offset: number): Tensor {
  const storage = buffer.storage.retain();
  return new Tensor({ device: buffer.device, shape, dtype, storage, offset });
}

/** A contiguous copy as one box. */
export function wholeBox(length: number): CopyBox {
  return { sizes: [length], sourceOffset: 0, sourceStrides: [1], targetOffset: 0, targetStrides: [1] };
}

/** Copies elements within a device, to the target's dtype. */
export function copyInto(target: Tensor, source: Tensor): void {
  const { kernels } = target.device.backend;
  if (source.dtype === target.dtype) kernels.copy(source.span, target.span, [wholeBox(source.numel)]);
  else kernels.cast(source.span, target.span);
}

/** `target += source`, element by element, of one dtype. */
export function addInto(target: Tensor, source: Tensor): void {
  const left = { span: target.span, strides: [1] };
  const right = { span: source.span, strides: [1] };
  target.device.backend.kernels.binary("add", left, right, target.span, [target.numel]);
}

/** Divides every element. */
export function divideBy(tensor: Tensor, divisor: number): void {
  if (divisor !== 1) tensor.device.backend.kernels.affine(tensor.span, tensor.span, 1 / divisor, 0);
}

/** Copies elements to the target's device, from the same one or one whose memory the host sees, and to its dtype. */
export function copyAcross(target: Tensor, source: Tensor): void {
  if (source.device === target.device) {
    copyInto(target, source);
    return;
  }
  using changed = converted(source, target.dtype, "communication");
  const view = changed.device.backend.hostView(changed.span);
  if (view === undefined) {
    throw new ConfigError(
      `Offloading failed: memory of backend "${source.device.backend.name}" is not the host's, offload to a CPU device`,
    );
  }
  target.device.backend.write(target.span, view);
}

/** The elements (taken over) on another device, from one whose memory the host sees. */
export function uploaded(source: Tensor, device: Device, category: MemoryCategory): Tensor {
  if (source.device === device) return source;
  const out = device.allocate(source.shape, source.dtype, category);
  copyAcross(out, source);
  source.dispose();
  return out;
}

/** The elements (taken over) on another device, one whose memory the host sees. */
export async function downloaded(source: Tensor, device: Device, category: MemoryCategory): Promise<Tensor> {
  if (source.device === device) return source;
  const out = device.allocate(source.shape, source.dtype, category);
  const view = device.backend.hostView(out.span);
  if (view === undefined) device.backend.write(out.span, await source.data());
  else await source.device.backend.readInto(source.span, view);
  source.dispose();
  return out;
}

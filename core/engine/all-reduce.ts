/**
 * All-reduce on device memory, beside the other collectives of `transfer.ts`.
 *
 * @module
 */
import type { Collective, ReductionOp, Work } from "../contracts/collective.ts";
import { hostArray } from "../contracts/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";

/**
 * Every rank's `tensor` becomes their reduction, in place. Adds in rank order, in float32 for 16-bit types. Calls on one
 * group must not overlap: where the host does not see the memory, the elements go through it.
 */
export function allReduce(collective: Collective, tensor: Tensor, op: ReductionOp): Work {
  const { backend } = tensor.device;
  const view = backend.hostView(tensor.span);
  if (view !== undefined) return collective.allReduce(view, op, tensor.dtype);
  const done = throughHost(collective, tensor, op);
  // Whoever waits is told; a pass that failed elsewhere waits no more.
  done.catch(() => {});
  return { wait: () => done };
}

async function throughHost(collective: Collective, tensor: Tensor, op: ReductionOp): Promise<void> {
  const { device, dtype, span, byteLength, numel } = tensor;
  const window = collective.window(byteLength);
  try {
    const host = hostArray(dtype, window.bytes.buffer, window.bytes.byteOffset, numel);
    await device.backend.readInto(span, host);
    await collective.allReduce(host, op, dtype).wait();
    device.backend.write(span, host);
  } catch (error) {
    // The other ranks would wait for this one.
    collective.abort(error instanceof Error ? error.message : String(error));
    throw error;
  } finally {
    window.release();
  }
}

/**
 * Collectives on device memory: directly where the host sees it, through host copies elsewhere.
 *
 * @module
 */
import type { Collective, ReductionOp, Work } from "../contracts/collective.ts";
import { type HostArray, newHostArray } from "../contracts/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Gathers every rank's `input` into `output` (size x input), in rank order. */
export function allGather(collective: Collective, output: Tensor, input: Tensor): Work {
  return run(collective, output, input, (out, source) => collective.allGather(out, source));
}

/** Reduces every rank's `input` (size x output) and leaves this rank's slice in `output`. */
export function reduceScatter(collective: Collective, output: Tensor, input: Tensor, op: ReductionOp): Work {
  return run(collective, output, input, (out, source) =>
    collective.reduceScatter(out, source, op, input.dtype),
  );
}

/** Last staged operation of each group: the next one starts after it, so that ranks agree on the order. */
const tails = new WeakMap<Collective, Promise<void>>();

function run(
  collective: Collective,
  output: Tensor,
  input: Tensor,
  start: (output: HostArray, input: HostArray) => Work,
): Work {
  const backend = output.device.backend;
  const out = backend.hostView(output.span);
  const source = backend.hostView(input.span);
  if (out !== undefined && source !== undefined) return start(out, source);

  const reading = backend.read(input.span);
  const staged = async (): Promise<void> => {
    const host = newHostArray(output.dtype, output.numel);
    await start(host, await reading).wait();
    backend.write(output.span, host);
  };
  const done = (tails.get(collective) ?? Promise.resolve()).then(staged);
  tails.set(
    collective,
    done.catch(() => {}),
  );
  return { wait: () => done };
}

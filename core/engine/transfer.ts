/**
 * Collectives on device memory. Where the host sees it, they work on it in place. Elsewhere each rank reads what its peers
 * need into memory that they see, and writes what it needs straight from theirs: two copies an element, one out of a device
 * and one into another. What a rank needs of its own stays on its device, and so do reductions.
 *
 * Reading begins at the call, behind the work that made the input, so that it overlaps what is computed next. Long slices
 * go in pieces, one after the other: out of a device, over to the peers and into theirs at the same time.
 *
 * @module
 */
import type { Span } from "../contracts/backend.ts";
import type { Collective, ReductionOp, SharedInputs, Work } from "../contracts/collective.ts";
import { accumulatorDType, DTYPES, type HostArray, hostArray } from "../contracts/dtype.ts";
import { ShapeError } from "../contracts/errors.ts";
import { joined } from "../tensor/spans.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Bytes of a rank's slice that are exchanged at a time: whole slices of 39 MB took 2 ms longer on two H200s. */
const PIECE_BYTES = 8 * 2 ** 20;

/**
 * Gathers every rank's `input` into `output` (size x input), in rank order. `input` may be this rank's slice of `output`.
 *
 * @throws ShapeError when the lengths or dtypes do not fit.
 */
export function allGather(collective: Collective, output: Tensor, input: Tensor): Work {
  const { backend } = output.device;
  const out = backend.hostView(output.span);
  const source = backend.hostView(input.span);
  if (out !== undefined && source !== undefined) return collective.allGather(out, source);

  requireSlice("allGather", collective, output, input);
  const { rank } = collective;
  const own = sliceOf(output.span, input.numel, rank);
  if (own.buffer !== input.span.buffer || own.offset !== input.span.offset) move(output, input.span, own);
  const exchanges = cut(input.span).map(({ begin, length }) =>
    exchange(collective, output, [partOf(input.span, begin, length)], async (inputs) => {
      const writes = [...inputs.entries()].flatMap(([peer, values]) => {
        const slice = sliceOf(output.span, input.numel, peer);
        return peer === rank ? [] : backend.writeFrom(partOf(slice, begin, length), values);
      });
      await Promise.all(writes);
    }),
  );
  return allOf(exchanges);
}

/**
 * Reduces every rank's `input` (size x output) and leaves this rank's slice in `output`, which does not overlap `input`.
 * Adds in rank order, in float32 for 16-bit types. What `input` holds afterwards is undefined.
 *
 * @throws ShapeError when the lengths or dtypes do not fit.
 */
export function reduceScatter(collective: Collective, output: Tensor, input: Tensor, op: ReductionOp): Work {
  const { backend } = output.device;
  const out = backend.hostView(output.span);
  const source = backend.hostView(input.span);
  if (out !== undefined && source !== undefined) {
    return collective.reduceScatter(out, source, op, input.dtype);
  }

  requireSlice("reduceScatter", collective, input, output);
  const { rank, size } = collective;
  const { numel } = output;
  const peers = [...Array(size).keys()].filter((peer) => peer !== rank);
  const exchanges = cut(output.span).map(({ begin, length }) => {
    const parts = peers.map((peer) => partOf(sliceOf(input.span, numel, peer), begin, length));
    return exchange(collective, output, joined(parts), async (inputs) => {
      // The peers' parts take the places of those that went to them.
      const writes = peers.map((peer, i) => {
        const at = (rank < peer ? rank : rank - 1) * length;
        return backend.writeFrom(parts[i]!, inputs[peer]!.subarray(at, at + length));
      });
      await Promise.all(writes);
    });
  });
  return allOf(exchanges, () => reduceSlices(output, input, op, size));
}

/** Shows what lies in `spans`, one after the other, to all ranks; `receive` writes what it needs of the others'. */
function exchange(
  collective: Collective,
  output: Tensor,
  spans: readonly Span[],
  receive: (inputs: readonly HostArray[]) => Promise<void>,
): Promise<void> {
  const { device, dtype } = output;
  const length = spans.reduce((sum, span) => sum + span.length, 0);
  const window = collective.window(length * DTYPES[dtype].bytes);
  const offered = hostArray(dtype, window.bytes.buffer, window.bytes.byteOffset, length);
  let begin = 0;
  const reads = spans.map((span) => {
    const target = offered.subarray(begin, begin + span.length);
    begin += span.length;
    return device.backend.readInto(span, target);
  });
  const sharing = collective.share(offered, Promise.all(reads));
  const giveBack = (): void => window.release();
  const done = sharing.then(async (shared: SharedInputs) => {
    shared.released.then(giveBack, giveBack);
    try {
      await receive(shared.inputs);
    } finally {
      shared.release();
    }
  });
  sharing.catch(giveBack);
  return done;
}

/** The work of all exchanges, and of what follows them. */
function allOf(exchanges: readonly Promise<void>[], then?: () => void): Work {
  const done = Promise.all(exchanges).then(then);
  // Whoever waits is told; a pass that failed elsewhere waits no more.
  done.catch(() => {});
  return { wait: () => done };
}

/** The same pieces of a slice on every rank: while one is read from a device, the one before goes to the others. */
function cut({ dtype, length }: Span): readonly { readonly begin: number; readonly length: number }[] {
  const most = PIECE_BYTES / DTYPES[dtype].bytes;
  const pieces = Math.max(1, Math.ceil(length / most));
  return Array.from({ length: pieces }, (_, i) => ({
    begin: i * most,
    length: Math.min(most, length - i * most),
  }));
}

/** Elements `[begin, begin + length)` of a span. */
function partOf(span: Span, begin: number, length: number): Span {
  return { ...span, offset: span.offset + begin, length };
}

/** `output` becomes the reduction of the `size` slices of `input`, in their order. */
function reduceSlices(output: Tensor, input: Tensor, op: ReductionOp, size: number): void {
  const { device, numel } = output;
  const { kernels } = device.backend;
  const dtype = accumulatorDType(output.dtype);
  const narrow = dtype !== output.dtype;
  using total = narrow ? device.allocate([numel], dtype, "communication") : output.alias();
  using term = narrow ? device.allocate([numel], dtype, "communication") : undefined;
  move(output, sliceOf(input.span, numel, 0), total.span);
  for (let rank = 1; rank < size; rank++) {
    const slice = sliceOf(input.span, numel, rank);
    if (term !== undefined) kernels.cast(slice, term.span);
    const left = { span: total.span, strides: [1] };
    const right = { span: term?.span ?? slice, strides: [1] };
    kernels.binary(op === "max" ? "maximum" : "add", left, right, total.span, [numel]);
  }
  if (op === "avg") kernels.affine(total.span, total.span, 1 / size, 0);
  if (narrow) kernels.cast(total.span, output.span);
}

/** Copies elements on the device, to another dtype if need be. */
function move({ device }: Tensor, source: Span, target: Span): void {
  const { kernels } = device.backend;
  if (source.dtype !== target.dtype) {
    kernels.cast(source, target);
    return;
  }
  const whole = {
    sizes: [source.length],
    sourceOffset: 0,
    sourceStrides: [1],
    targetOffset: 0,
    targetStrides: [1],
  };
  kernels.copy(source, target, [whole]);
}

/** Slice `index` of a span that consists of slices of `length` elements. */
function sliceOf(span: Span, length: number, index: number): Span {
  return partOf(span, index * length, length);
}

/**
 * Fails the group too, lest the other ranks wait.
 *
 * @throws ShapeError unless `whole` has the elements of `part` once per rank.
 */
function requireSlice(call: string, collective: Collective, whole: Tensor, part: Tensor): void {
  const { size } = collective;
  if (whole.numel === size * part.numel && whole.dtype === part.dtype) return;
  const problem = `${call} over ${size} ranks: ${whole.dtype}[${whole.numel}] was given with ${part.dtype}[${part.numel}], allowed: one dtype, and ${size} times as many elements`;
  collective.abort(problem);
  throw new ShapeError(problem);
}

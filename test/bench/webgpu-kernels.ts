/**
 * Times of the WebGPU backend's matrix products and attention, in float32 and float16: square products, and those of one
 * training step of GPT-2 124M (8 sequences of 1024 tokens), added up to what a step of them takes.
 *
 *     bun test/bench/webgpu-kernels.ts
 *
 * @module
 */
import { webgpuBackend } from "../../backends/webgpu/mod.ts";
import type { Backend, Span } from "../../core/contracts/backend.ts";
import { DTYPES, type DType, newHostArray } from "../../core/contracts/dtype.ts";
import type { HeadsOperand, MatmulArgs } from "../../core/contracts/kernels.ts";

type Float = "float32" | "float16";

/** Milliseconds of work before a measurement, which brings clocks up, and of one measurement; batches to take the median of. */
const WARM_MS = 80;
const BATCH_MS = 12;
const BATCHES = 5;

/** Tokens of a step, its layers, width and vocabulary, and the rows of logits computed at a time. */
const STEP = {
  batch: 8,
  length: 1024,
  layers: 12,
  width: 768,
  heads: 12,
  vocabulary: 50_257,
  chunk: 2048,
} as const;
const TOKENS = STEP.batch * STEP.length;

/** One measured kernel. */
interface Line {
  readonly what: string;
  readonly milliseconds: number;
  readonly teraflops: number;
}

/** Milliseconds of one call of `work`: the median of batches. */
async function measure(backend: Backend, work: () => void): Promise<number> {
  const batch = async (count: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < count; i++) work();
    await backend.flush();
    return (performance.now() - start) / count;
  };
  await batch(1);
  let once = await batch(2);
  once = await batch(Math.max(1, Math.ceil(WARM_MS / once)));
  const times: number[] = [];
  for (let i = 0; i < BATCHES; i++) times.push(await batch(Math.max(1, Math.ceil(BATCH_MS / once))));
  return times.sort((a, b) => a - b)[BATCHES >> 1]!;
}

/** Device memory with numbers around zero: products of zeros run faster than others. */
function random(backend: Backend, dtype: DType, length: number): Span {
  const buffer = backend.allocate(length * DTYPES[dtype].bytes, "activation");
  const period = newHostArray(dtype, Math.min(length, 1 << 20)) as Float32Array;
  for (let i = 0; i < period.length; i++) period[i] = Math.sin(i * 12.9898) * 0.5;
  for (let at = 0; at < length; at += period.length) {
    const part = period.subarray(0, Math.min(period.length, length - at));
    backend.write({ buffer, dtype, offset: at, length: part.length }, part);
  }
  return { buffer, dtype, offset: 0, length };
}

interface Shape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** First letter for a, second for b: n as it is, t transposed. */
  readonly order: "nn" | "nt" | "tn";
  readonly out?: Float;
}

async function product(
  backend: Backend,
  dtype: Float,
  { m, n, k, order, out = dtype }: Shape,
): Promise<Line> {
  const [ta, tb] = [order === "tn", order === "nt"];
  // Rows of logits begin at multiples of eight elements, as chunked losses lay them out.
  const padded = (columns: number): number => Math.ceil(columns / 8) * 8;
  const operand = (rows: number, columns: number, transposed: boolean, of: Float): MatmulArgs["a"] => {
    const [r, c] = transposed ? [columns, rows] : [rows, columns];
    const rowStride = padded(c);
    return { span: random(backend, of, r * rowStride), rowStride, batchStride: 0, transposed };
  };
  const args = { a: operand(m, k, ta, dtype), b: operand(k, n, tb, dtype), out: operand(m, n, false, out) };
  const milliseconds = await measure(backend, () => backend.kernels.matmul({ ...args, batch: 1, m, n, k }));
  for (const { span } of Object.values(args)) backend.release(span.buffer);
  const what = `matmul ${order} ${m} x ${n} x ${k}`;
  return { what, milliseconds, teraflops: (2 * m * n * k) / milliseconds / 1e9 };
}

async function attention(backend: Backend, dtype: Float): Promise<readonly [Line, Line]> {
  const { batch, length, heads, width } = STEP;
  const headDim = width / heads;
  const shape = {
    ...{ batch, heads, keyHeads: heads, queryLength: length, keyLength: length, headDim },
    scale: 1 / Math.sqrt(headDim),
    causal: true,
  };
  const packed = random(backend, dtype, TOKENS * 3 * width);
  const dPacked = random(backend, dtype, TOKENS * 3 * width);
  const third = (span: Span, i: number): HeadsOperand => ({
    span: { ...span, offset: i * width, length: span.length - i * width },
    rowStride: 3 * width,
    batchStride: length * 3 * width,
  });
  const rows = (): HeadsOperand => ({
    span: random(backend, dtype, TOKENS * width),
    rowStride: width,
    batchStride: length * width,
  });
  const [query, key, value] = [third(packed, 0), third(packed, 1), third(packed, 2)];
  const [dQuery, dKey, dValue] = [third(dPacked, 0), third(dPacked, 1), third(dPacked, 2)];
  const [out, gradient] = [rows(), rows()];
  const logSumExp = random(backend, "float32", TOKENS * heads);
  const forward = { shape, query, key, value, out, logSumExp };
  const backward = { ...forward, gradient, dQuery, dKey, dValue };
  const ahead = await measure(backend, () => backend.kernels.attention(forward));
  const back = await measure(backend, () => backend.kernels.attentionBackward(backward));
  for (const { buffer } of [packed, dPacked, out.span, gradient.span, logSumExp]) backend.release(buffer);
  const flops = 2 * batch * heads * length * length * headDim;
  return [
    { what: "attention forward", milliseconds: ahead, teraflops: flops / ahead / 1e9 },
    { what: "attention backward", milliseconds: back, teraflops: (2.5 * flops) / back / 1e9 },
  ];
}

/** Products of one step: how often each happens in it. */
function stepShapes(): readonly (Shape & { readonly times: number })[] {
  const { layers, width, vocabulary, chunk } = STEP;
  const linear = (inputs: number, outputs: number): readonly (Shape & { readonly times: number })[] => [
    { m: TOKENS, n: outputs, k: inputs, order: "nn", times: layers },
    { m: TOKENS, n: inputs, k: outputs, order: "nt", times: layers },
    { m: inputs, n: outputs, k: TOKENS, order: "tn", times: layers },
  ];
  const chunks = TOKENS / chunk;
  return [
    ...linear(width, 3 * width),
    ...linear(width, width),
    ...linear(width, 4 * width),
    ...linear(4 * width, width),
    { m: chunk, n: vocabulary, k: width, order: "nt", times: chunks },
    { m: chunk, n: width, k: vocabulary, order: "nn", times: chunks },
    { m: vocabulary, n: width, k: chunk, order: "tn", times: chunks },
  ];
}

function print({ what, milliseconds, teraflops }: Line, times?: number): void {
  const count = times === undefined ? "" : ` x ${times}`;
  console.log(
    `${what.padEnd(36)} ${milliseconds.toFixed(3).padStart(9)} ms ${teraflops.toFixed(1).padStart(7)} TFLOP/s${count}`,
  );
}

const backend = await webgpuBackend.create({ settings: {} });
console.log(backend.description);
for (const dtype of ["float32", "float16"] as const) {
  if (!backend.capabilities.computeDTypes.includes(dtype)) continue;
  console.log(`\n${dtype}`);
  for (const order of ["nn", "nt", "tn"] as const)
    print(await product(backend, dtype, { m: 4096, n: 4096, k: 4096, order, out: "float32" }));
  let total = 0;
  for (const shape of stepShapes()) {
    const line = await product(backend, dtype, shape);
    total += shape.times * line.milliseconds;
    print(line, shape.times);
  }
  for (const line of await attention(backend, dtype)) {
    total += STEP.layers * line.milliseconds;
    print(line, STEP.layers);
  }
  console.log(
    `GPT-2 124M, all of these in one step: ${total.toFixed(1)} ms, ${Math.round((TOKENS / total) * 1000)} tokens/s`,
  );
}
await backend.dispose();

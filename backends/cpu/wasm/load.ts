/**
 * Loads the WebAssembly kernels into a device's memory: the relaxed-SIMD variant where the runtime has it.
 *
 * @module
 */
import { DeviceError } from "../../../core/contracts/errors.ts";
import { type CpuMemory, RESERVED_PAGES } from "../memory.ts";
import { relaxed, simd } from "./kernels.generated.ts";

/** What the module exports; pointers are byte addresses, flags 0 or 1. See assembly/ for each. */
export interface WasmKernels {
  staticEnd(): number;
  sgemm(
    m: number,
    n: number,
    k: number,
    alpha: number,
    a: number,
    lda: number,
    transposeA: number,
    b: number,
    ldb: number,
    transposeB: number,
    c: number,
    ldc: number,
    accumulate: number,
  ): void;
  unary(op: number, x: number, out: number, n: number): void;
  unaryBackward(op: number, x: number, y: number, gradient: number, out: number, n: number): void;
  binary(op: number, a: number, stepA: number, b: number, stepB: number, out: number, n: number): void;
  gated(op: number, gate: number, x: number, out: number, n: number): void;
  gatedBackward(
    op: number,
    gate: number,
    x: number,
    gradient: number,
    dGate: number,
    dX: number,
    n: number,
  ): void;
  affine(x: number, out: number, n: number, scale: number, shift: number): void;
  sumSquares(x: number, n: number): number;
  sumColumns(x: number, out: number, rows: number, columns: number, accumulate: number): void;
  softmax(x: number, out: number, rows: number, columns: number, log: number): void;
  softmaxBackward(y: number, gradient: number, out: number, rows: number, columns: number, log: number): void;
  crossEntropy(x: number, targets: number, losses: number, lse: number, rows: number, columns: number): void;
  crossEntropyBackward(
    x: number,
    targets: number,
    lse: number,
    gradient: number,
    out: number,
    rows: number,
    columns: number,
  ): void;
  layerNorm(
    x: number,
    weight: number,
    bias: number,
    out: number,
    mean: number,
    rstd: number,
    rows: number,
    columns: number,
    eps: number,
  ): void;
  layerNormBackward(
    x: number,
    weight: number,
    mean: number,
    rstd: number,
    gradient: number,
    dx: number,
    dWeight: number,
    dBias: number,
    rows: number,
    columns: number,
  ): void;
  rmsNorm(
    x: number,
    weight: number,
    out: number,
    rstd: number,
    rows: number,
    columns: number,
    eps: number,
  ): void;
  rmsNormBackward(
    x: number,
    weight: number,
    rstd: number,
    gradient: number,
    dx: number,
    dWeight: number,
    rows: number,
    columns: number,
  ): void;
  rotary(
    x: number,
    out: number,
    cos: number,
    sin: number,
    rows: number,
    length: number,
    heads: number,
    half: number,
    sign: number,
  ): void;
  scoresSoftmax(
    scores: number,
    lse: number,
    rows: number,
    columns: number,
    causal: number,
    visible: number,
  ): void;
  rowDots(
    rows: number,
    columns: number,
    a: number,
    strideA: number,
    b: number,
    strideB: number,
    out: number,
  ): void;
  scoresBackward(
    scores: number,
    gradient: number,
    lse: number,
    dots: number,
    rows: number,
    columns: number,
    causal: number,
    visible: number,
    scale: number,
  ): void;
  dropout(
    x: number,
    out: number,
    n: number,
    block: number,
    threshold: number,
    scale: number,
    keyLow: number,
    keyHigh: number,
  ): void;
  adamw(
    parameter: number,
    gradient: number,
    expAvg: number,
    expAvgSq: number,
    n: number,
    decay: number,
    rate: number,
    correction: number,
    beta1Rest: number,
    beta2: number,
    beta2Rest: number,
    eps: number,
  ): void;
}

/** Variants of the module, the best first. */
const VARIANTS = [
  { name: "relaxed SIMD", code: relaxed },
  { name: "SIMD", code: simd },
] as const;

/** The variant that this runtime takes. */
export interface WasmVariant {
  /** For people. */
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** The best variant here, or `undefined` when the runtime has no SIMD. */
export function findVariant(): WasmVariant | undefined {
  for (const { name, code } of VARIANTS) {
    const bytes = Uint8Array.from(atob(code), (c) => c.charCodeAt(0));
    if (WebAssembly.validate(bytes)) return { name, bytes };
  }
  return undefined;
}

/** Compiled once for all devices of a thread. */
const compiled = new Map<string, Promise<WebAssembly.Module>>();

/** Puts a variant's constants and code to work in a device's memory. @throws DeviceError when it does not fit. */
export async function loadKernels(variant: WasmVariant, { memory }: CpuMemory): Promise<WasmKernels> {
  let module = compiled.get(variant.name);
  if (module === undefined) {
    module = WebAssembly.compile(variant.bytes);
    compiled.set(variant.name, module);
  }
  const instance = await WebAssembly.instantiate(await module, { env: { memory } });
  const kernels = instance.exports as unknown as WasmKernels;
  const end = kernels.staticEnd();
  if (end > RESERVED_PAGES * 65536) {
    throw new DeviceError(`cpu wasm: the module takes ${end} bytes, allowed: ${RESERVED_PAGES * 65536}`);
  }
  return kernels;
}

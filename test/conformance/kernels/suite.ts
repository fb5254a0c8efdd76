/**
 * The conformance suite of kernels: what every backend must pass. Each kernel meets a float64 oracle of nested loops,
 * written here and nowhere else, over random and awkward shapes.
 *
 *     kernelConformance("cpu", () => cpuBackend.create({}));
 *
 * @module
 */
import { afterAll, beforeAll, describe } from "bun:test";
import type { Backend } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType } from "../../../core/contracts/dtype.ts";
import { attentionConformance } from "./attention.ts";
import { dataConformance } from "./data.ts";
import { elementwiseConformance } from "./elementwise.ts";
import { float8Conformance } from "./float8.ts";
import { gatedConformance } from "./gated.ts";
import type { FloatDType, Suite } from "./harness.ts";
import { matmulConformance } from "./matmul.ts";
import { optimizerConformance } from "./optimizer.ts";
import { rmsNormConformance } from "./rms-norm.ts";
import { rotaryConformance } from "./rotary.ts";
import { rowConformance } from "./rows.ts";

/** What a backend is asked for. */
export interface ConformanceOptions {
  /** Dtypes that it computes in: float32 unless given. */
  readonly dtypes?: readonly FloatDType[];
  /** Dtypes that it stores, copies and converts: all unless given. */
  readonly storage?: readonly DType[];
  /** Multiplies every tolerance, for devices with coarser elementary functions: 1 unless given. */
  readonly slack?: number;
  /** Elements before and behind every span: 3 unless given, so that spans are unaligned; 4 aligns them to four. */
  readonly guard?: number;
}

/** Registers the tests of all kernels for one backend. */
export function kernelConformance(
  name: string,
  createBackend: () => Promise<Backend>,
  options: ConformanceOptions = {},
): void {
  const { dtypes = ["float32"], storage = Object.keys(DTYPES) as DType[], slack = 1, guard = 3 } = options;
  describe(`kernels of ${name}`, () => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await createBackend();
    });
    afterAll(() => backend.dispose());
    const suite: Suite = { backend: () => backend, dtypes, storage, slack, guard };
    dataConformance(suite);
    if (dtypes.includes("float32")) float8Conformance(suite);
    elementwiseConformance(suite);
    rowConformance(suite);
    gatedConformance(suite);
    rmsNormConformance(suite);
    rotaryConformance(suite);
    matmulConformance(suite);
    attentionConformance(suite);
    optimizerConformance(suite);
  });
}

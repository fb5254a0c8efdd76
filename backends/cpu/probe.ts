/**
 * What this machine offers to the CPU backend.
 *
 * @module
 */
import { availableParallelism } from "node:os";
import type { ProbeLine } from "../../core/contracts/plugin.ts";
import { describeBlas, findBlas } from "./gemm/blas.ts";

/** See `BackendFactory.probe`. */
export async function probeCpu(): Promise<readonly ProbeLine[]> {
  const blas = await findBlas(1);
  return [
    { what: "cpu cores", found: String(availableParallelism()) },
    { what: "cpu matmul", found: "missing" in blas ? `no BLAS found: ${blas.missing}` : describeBlas(blas) },
  ];
}

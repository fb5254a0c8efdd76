/**
 * What this machine offers to the CPU backend.
 *
 * @module
 */
import { availableParallelism } from "node:os";
import type { ProbeLine } from "../../core/contracts/plugin.ts";
import { planEngines } from "./engines.ts";
import { parseSettings } from "./settings.ts";

/** See `BackendFactory.probe`. */
export async function probeCpu(): Promise<readonly ProbeLine[]> {
  const plan = await planEngines(parseSettings(), 1);
  return [
    { what: "cpu cores", found: String(availableParallelism()) },
    { what: "cpu matmul", found: plan.matmulLine },
    { what: "cpu kernels", found: plan.kernelsLine },
  ];
}

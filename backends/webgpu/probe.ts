/**
 * What this machine offers to the WebGPU backend.
 *
 * @module
 */
import { FsdpError } from "../../core/contracts/errors.ts";
import type { ProbeLine } from "../../core/contracts/plugin.ts";
import { openAdapter } from "./adapter.ts";
import { featuresOf } from "./device.ts";
import { findSelector, listGpus } from "./pci.ts";
import { parseSettings } from "./settings.ts";

/** See `BackendFactory.probe`. */
export async function probeWebgpu(): Promise<readonly ProbeLine[]> {
  const settings = parseSettings();
  const gpus = listGpus();
  const listed = { what: "webgpu gpus", found: await describeGpus(gpus) };
  try {
    const { gpu, adapter, description } = await openAdapter(settings, {});
    const { f16, subgroups, minLanes, maxLanes, matrices, immediateBytes } = featuresOf(
      gpu,
      adapter,
      settings,
    );
    const { maxBufferSize, maxStorageBufferBindingSize, maxComputeWorkgroupStorageSize } = adapter.limits;
    const has = [
      `float16 ${f16 ? "yes" : "no"}`,
      `subgroups ${subgroups ? `of ${minLanes} to ${maxLanes}` : "no"}`,
      `subgroup matrices ${matrices.length === 0 ? "no" : matrices.map(showMatrix).join(", ")}`,
      `immediates ${immediateBytes === 0 ? "no" : `${immediateBytes} bytes`}`,
    ];
    const limits = `buffer ${maxBufferSize}, binding ${maxStorageBufferBindingSize}, workgroup memory ${maxComputeWorkgroupStorageSize} bytes`;
    return [
      { what: "webgpu adapter", found: description },
      listed,
      { what: "webgpu features", found: has.join("; ") },
      { what: "webgpu limits", found: limits },
    ];
  } catch (error) {
    if (!(error instanceof FsdpError)) throw error;
    return [{ what: "webgpu adapter", found: error.message }, listed];
  }
}

function showMatrix({
  m,
  n,
  k,
  component,
  result,
}: ReturnType<typeof featuresOf>["matrices"][number]): string {
  return `${m}x${n}x${k} ${component} to ${result}`;
}

async function describeGpus(gpus: readonly string[]): Promise<string> {
  if (gpus.length === 0) return "no list on this machine: the system's first adapter is used";
  const list = gpus.map((gpu, i) => `${i}: ${gpu}`).join(", ");
  const selector = gpus.length === 1 ? undefined : await findSelector();
  if (selector === undefined || typeof selector === "function") return list;
  return `${list}; they cannot be told apart: ${selector.missing}`;
}

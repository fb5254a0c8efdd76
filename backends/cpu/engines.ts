import { DeviceError } from "../../core/contracts/errors.ts";
import { blasEngine, blasMissing, findBlas } from "./gemm/blas.ts";
import type { GemmEngine } from "./gemm/gemm.ts";
import { plainEngine } from "./gemm/plain.ts";
import type { CpuMemory } from "./memory.ts";
import type { CpuSettings } from "./settings.ts";

export async function chooseEngine(
  setting: CpuSettings["matmul"],
  memory: CpuMemory,
  localWorldSize: number,
): Promise<GemmEngine> {
  if (setting === "plain") return plainEngine(memory);
  if (setting === "wasm") throw new DeviceError("cpu setting matmul: wasm is not built yet");
  const found = await findBlas(localWorldSize);
  if ("missing" in found) {
    if (setting === "blas") throw blasMissing(found.missing);
    return plainEngine(memory);
  }
  return blasEngine(memory.memory, found);
}

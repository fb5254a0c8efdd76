import { DeviceError } from "../../../core/contracts/errors.ts";
import type { MatmulArgs } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
export function matmul(_gpu: Gpu, _args: MatmulArgs): void {
  throw new DeviceError("webgpu matmul: not there yet");
}

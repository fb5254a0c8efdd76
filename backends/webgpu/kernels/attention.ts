import { DeviceError } from "../../../core/contracts/errors.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
export function attention(_gpu: Gpu, _args: Parameters<Kernels["attention"]>[0]): void {
  throw new DeviceError("webgpu attention: not there yet");
}
export function attentionBackward(_gpu: Gpu, _args: Parameters<Kernels["attentionBackward"]>[0]): void {
  throw new DeviceError("webgpu attention: not there yet");
}

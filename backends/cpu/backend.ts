/**
 * The CPU backend: tensors in one shared WebAssembly memory, plain TypeScript kernels, and faster twins of the hot ones
 * in WebAssembly and BLAS. Work is done when a call returns.
 *
 * @module
 */
import type { Backend, BackendCapabilities, DeviceBuffer, Span } from "../../core/contracts/backend.ts";
import type { HostArray } from "../../core/contracts/dtype.ts";
import { ShapeError } from "../../core/contracts/errors.ts";
import type { Kernels } from "../../core/contracts/kernels.ts";
import type { MemoryAccount, MemoryCategory } from "../../core/contracts/memory.ts";
import type { BackendOptions } from "../../core/contracts/plugin.ts";
import { planEngines, startEngines } from "./engines.ts";
import { fastKernels } from "./fast/kernels.ts";
import { plainKernels } from "./kernels/plain.ts";
import { CpuMemory } from "./memory.ts";
import { parseSettings } from "./settings.ts";

/** One CPU device. */
class CpuBackend implements Backend {
  readonly name = "cpu";
  readonly description: string;
  readonly capabilities: BackendCapabilities;
  readonly memory: MemoryAccount;
  readonly kernels: Kernels;
  readonly #memory: CpuMemory;

  constructor(memory: CpuMemory, kernels: Kernels, description: string) {
    this.#memory = memory;
    this.memory = memory.meter;
    this.kernels = kernels;
    this.description = description;
    this.capabilities = { computeDTypes: ["float32", "float64"], maxBufferBytes: memory.maxBufferBytes };
  }

  allocate(byteLength: number, category: MemoryCategory): DeviceBuffer {
    return this.#memory.allocate(byteLength, category);
  }

  release(buffer: DeviceBuffer): void {
    this.#memory.release(buffer);
  }

  relabel(buffer: DeviceBuffer, category: MemoryCategory): void {
    this.#memory.relabel(buffer, category);
  }

  write(target: Span, source: HostArray): void {
    const view = this.#memory.view(target);
    if (view.constructor !== source.constructor || view.length !== source.length) {
      throw new ShapeError(
        `cpu write: ${source.constructor.name} of ${source.length} elements was given for ${target.dtype}[${target.length}]`,
      );
    }
    // Both are arrays of one kind: `set` copies bytes.
    (view as Uint8Array).set(source as Uint8Array);
  }

  async read(source: Span): Promise<HostArray> {
    return this.#memory.view(source).slice();
  }

  hostView(span: Span): HostArray {
    return this.#memory.view(span);
  }

  async flush(): Promise<void> {}

  async dispose(): Promise<void> {
    this.#memory.dispose();
  }
}

/** Makes a CPU device. @throws ConfigError for bad settings, DeviceError for an engine that is not there. */
export async function createCpuBackend(options: BackendOptions): Promise<Backend> {
  const settings = parseSettings(options.settings);
  const plan = await planEngines(settings, options.localWorldSize ?? 1);
  const memory = new CpuMemory(options.hostMemory);
  try {
    const { engine, wasm } = await startEngines(plan, settings, memory);
    const plain = plainKernels(memory, engine);
    const kernels = wasm === undefined ? plain : fastKernels(plain, memory, engine, wasm);
    return new CpuBackend(memory, kernels, `matmul: ${plan.matmulLine}; other kernels: ${plan.kernelsLine}`);
  } catch (error) {
    memory.dispose();
    throw error;
  }
}

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
import { HALF_SIZES, type HalfSizes } from "./half/context.ts";
import { withHalf } from "./half/kernels.ts";
import { activatedMatmul } from "./kernels/activation.ts";
import { COMPUTE_DTYPES } from "./kernels/heap.ts";
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
    this.capabilities = { computeDTypes: COMPUTE_DTYPES, maxBufferBytes: memory.maxBufferBytes };
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
    requireAlike("write", target, view, source);
    // Both are arrays of one kind: `set` copies bytes.
    (view as Uint8Array).set(source as Uint8Array);
  }

  async writeFrom(target: Span, source: HostArray): Promise<void> {
    this.write(target, source);
  }

  async read(source: Span): Promise<HostArray> {
    return this.#memory.view(source).slice();
  }

  async readInto(source: Span, target: HostArray): Promise<void> {
    const view = this.#memory.view(source);
    requireAlike("readInto", source, view, target);
    (target as Uint8Array).set(view as Uint8Array);
  }

  hostView(span: Span): HostArray {
    return this.#memory.view(span);
  }

  async flush(): Promise<void> {}

  async dispose(): Promise<void> {
    this.#memory.dispose();
  }
}

/** @throws ShapeError unless `array` has the class and length of a span's `view`. */
function requireAlike(call: string, span: Span, view: HostArray, array: HostArray): void {
  if (view.constructor === array.constructor && view.length === array.length) return;
  throw new ShapeError(
    `cpu ${call}: ${array.constructor.name} of ${array.length} elements was given for ${span.dtype}[${span.length}]`,
  );
}

/**
 * Makes a CPU device.
 *
 * @throws ConfigError for bad settings, DeviceError for an engine that is not there.
 */
export async function createCpuBackend(
  options: BackendOptions,
  sizes: HalfSizes = HALF_SIZES,
): Promise<Backend> {
  const settings = parseSettings(options.settings);
  const plan = await planEngines(settings, options.localWorldSize ?? 1);
  const memory = new CpuMemory(options.hostMemory);
  try {
    const { engine, wasm, converter } = await startEngines(plan, settings, memory);
    const plain = plainKernels(memory, engine);
    const kernels = wasm === undefined ? plain : fastKernels(plain, memory, engine, wasm);
    const float32 = { ...kernels, matmul: activatedMatmul(kernels) };
    const all = withHalf({ heap: memory, float32, converter, sizes });
    return new CpuBackend(memory, all, `matmul: ${plan.matmulLine}; other kernels: ${plan.kernelsLine}`);
  } catch (error) {
    memory.dispose();
    throw error;
  }
}

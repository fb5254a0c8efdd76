/**
 * Compiled kernels, and the layouts that they share: bind groups depend on which operands are written, not on the
 * kernel, so two kernels of one shape of operands use the same ones.
 *
 * @module
 */
import { COMPUTE_STAGE } from "./constants.ts";
import type { GpuDevice } from "./device.ts";
import { assemble, type KernelSource, type ParameterSpace, parameterBytes } from "./wgsl/source.ts";

/** Layout of a kernel's storage operands. */
export interface OperandLayout {
  /** Small and stable, for cache keys. */
  readonly id: number;
  readonly layout: GPUBindGroupLayout;
}

/** A kernel that can be dispatched. */
export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly operands: OperandLayout;
  readonly space: ParameterSpace;
  readonly parameterBytes: number;
  /** The kernel's own scalars in order. */
  readonly scalars: readonly { readonly name: string; readonly float: boolean }[];
}

/** Immediates are declared with one size by all kernels, so that layouts are shared. */
export const IMMEDIATE_WORDS = 16;

/** Compiles each kernel once for each way in which its operands share buffers. */
export class PipelineCache {
  readonly #gpu: GpuDevice;
  readonly #bySource: Map<KernelSource, Map<string, Pipeline>> = new Map();
  readonly #byText: Map<string, Pipeline> = new Map();
  readonly #operandLayouts: Map<string, OperandLayout> = new Map();
  readonly #pipelineLayouts: Map<string, GPUPipelineLayout> = new Map();
  readonly uniformLayout: GPUBindGroupLayout;

  constructor(gpu: GpuDevice) {
    this.#gpu = gpu;
    this.uniformLayout = gpu.device.createBindGroupLayout({
      entries: [
        { binding: 0, visibility: COMPUTE_STAGE, buffer: { type: "uniform", hasDynamicOffset: true } },
      ],
    });
  }

  /** The kernel with operand i bound at `slots[i]`. */
  get(source: KernelSource, slots: readonly number[]): Pipeline {
    let variants = this.#bySource.get(source);
    if (variants === undefined) {
      variants = new Map();
      this.#bySource.set(source, variants);
    }
    const key = slots.join();
    let pipeline = variants.get(key);
    if (pipeline === undefined) {
      pipeline = this.#compile(source, slots);
      variants.set(key, pipeline);
    }
    return pipeline;
  }

  #compile(source: KernelSource, slots: readonly number[]): Pipeline {
    const bytes = parameterBytes(source);
    const immediate =
      source.table === undefined && bytes <= Math.min(4 * IMMEDIATE_WORDS, this.#gpu.features.immediateBytes);
    const space: ParameterSpace = immediate ? "immediate" : "uniform";
    const code = assemble(source, slots, space);
    const known = this.#byText.get(code);
    if (known !== undefined) return known;
    const operands = this.#operandLayout(source, slots);
    const { device } = this.#gpu;
    this.#gpu.beginScope("validation");
    const module = device.createShaderModule({ label: source.name, code });
    const pipeline = device.createComputePipeline({
      label: source.name,
      layout: this.#pipelineLayout(operands, space),
      compute: { module, entryPoint: "main" },
    });
    this.#gpu.endScope(`kernel "${source.name}" does not compile`);
    const scalars = Object.entries(source.params).map(([name, type]) => ({ name, float: type === "f32" }));
    const made = { pipeline, operands, space, parameterBytes: bytes, scalars };
    this.#byText.set(code, made);
    return made;
  }

  #operandLayout(source: KernelSource, slots: readonly number[]): OperandLayout {
    const written = [...new Set(slots)].map((slot) =>
      source.operands.some(({ write }, i) => slots[i] === slot && write === true),
    );
    const key = written.map((write) => (write ? "w" : "r")).join("");
    const known = this.#operandLayouts.get(key);
    if (known !== undefined) return known;
    const layout = this.#gpu.device.createBindGroupLayout({
      entries: written.map((write, binding) => ({
        binding,
        visibility: COMPUTE_STAGE,
        buffer: { type: write ? "storage" : "read-only-storage" },
      })),
    });
    const made = { id: this.#operandLayouts.size, layout };
    this.#operandLayouts.set(key, made);
    return made;
  }

  #pipelineLayout(operands: OperandLayout, space: ParameterSpace): GPUPipelineLayout {
    const key = `${space} ${operands.id}`;
    let layout = this.#pipelineLayouts.get(key);
    if (layout === undefined) {
      layout = this.#gpu.device.createPipelineLayout(
        space === "immediate"
          ? { bindGroupLayouts: [operands.layout], immediateSize: 4 * IMMEDIATE_WORDS }
          : { bindGroupLayouts: [operands.layout, this.uniformLayout] },
      );
      this.#pipelineLayouts.set(key, layout);
    }
    return layout;
  }
}

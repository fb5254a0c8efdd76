/**
 * Dispatch: the one function that kernels use to reach the device. It binds spans to operands, writes parameters,
 * compiles on first use, folds large grids and records the command.
 *
 * @module
 */
import type { Span } from "../../core/contracts/backend.ts";
import { DTYPES, type DType } from "../../core/contracts/dtype.ts";
import { DeviceError, ShapeError, StateError } from "../../core/contracts/errors.ts";
import { type BufferPool, WebgpuBuffer } from "./buffers.ts";
import type { Commands } from "./commands.ts";
import { MAX_GRID } from "./constants.ts";
import type { GpuDevice, GpuFeatures, GpuLimits } from "./device.ts";
import { IMMEDIATE_WORDS, type Pipeline, PipelineCache } from "./pipelines.ts";
import { ELEMENT_BYTES, type KernelSource } from "./wgsl/source.ts";

/** What kernels see of the device. */
export interface Gpu {
  readonly features: GpuFeatures;
  readonly limits: GpuLimits;
  /**
   * Runs a kernel over spans, one for each operand in order. `groups` is a number of workgroups, folded into two
   * dimensions when it is large (kernels guard against those beyond), or a grid. Zero workgroups are a no-op.
   *
   * @throws DeviceError when a span is larger than a binding, StateError for spans of other devices or released ones,
   * ShapeError for spans outside their buffers.
   */
  dispatch(
    source: KernelSource,
    spans: readonly Span[],
    params: Readonly<Record<string, number>>,
    groups: number | readonly [number, number, number],
    table?: Uint32Array,
  ): void;
  /** A span for use by the commands that `use` records. */
  withScratch(dtype: DType, length: number, use: (scratch: Span) => void): void;
}

/** What one operand is bound to. */
interface Binding {
  readonly buffer: WebgpuBuffer;
  /** First and last byte of the span in the buffer. */
  readonly start: number;
  readonly end: number;
}

/** The part of a buffer that a slot shows. */
interface Window {
  readonly id: number;
  readonly gpu: GPUBuffer;
  readonly base: number;
  readonly size: number;
}

/** Bind groups to keep. A step repeats its own, unless allocations come in another order. */
const MAX_BIND_GROUPS = 16_384;

/** Records kernels on one device. */
export class Dispatcher implements Gpu {
  readonly features: GpuFeatures;
  readonly limits: GpuLimits;
  readonly #gpu: GpuDevice;
  readonly #pool: BufferPool;
  readonly #commands: Commands;
  readonly #pipelines: PipelineCache;
  readonly #groups: Map<string, GPUBindGroup> = new Map();
  readonly #uniformGroups: Map<number, GPUBindGroup> = new Map();
  readonly #words: Uint32Array<ArrayBuffer> = new Uint32Array(IMMEDIATE_WORDS);
  readonly #floats: Float32Array = new Float32Array(this.#words.buffer);
  readonly #views: readonly Uint32Array<ArrayBuffer>[];

  constructor(gpu: GpuDevice, pool: BufferPool, commands: Commands) {
    this.#gpu = gpu;
    this.#pool = pool;
    this.#commands = commands;
    this.features = gpu.features;
    this.limits = gpu.limits;
    this.#pipelines = new PipelineCache(gpu);
    this.#views = Array.from({ length: IMMEDIATE_WORDS + 1 }, (_, n) => this.#words.subarray(0, n));
  }

  /** Forgets bind groups: a buffer that they may hold is gone. */
  forgetBindings(): void {
    this.#groups.clear();
  }

  /** The span's buffer. @throws StateError for spans of other devices or released ones, ShapeError for spans outside. */
  resolve(span: Span): WebgpuBuffer {
    const { buffer, dtype, offset, length } = span;
    if (!(buffer instanceof WebgpuBuffer) || buffer.pool !== this.#pool) {
      throw new StateError("webgpu: a buffer of another device was given");
    }
    const { bytes } = DTYPES[dtype];
    const inside = offset >= 0 && length >= 0 && (offset + length) * bytes <= buffer.byteLength;
    if (!inside || !Number.isInteger(offset) || !Number.isInteger(length)) {
      throw new ShapeError(
        `webgpu: ${dtype} elements ${offset} to ${offset + length} were given of a buffer of ${buffer.byteLength} bytes`,
      );
    }
    return buffer;
  }

  withScratch(dtype: DType, length: number, use: (scratch: Span) => void): void {
    const buffer = this.#pool.allocate(length * DTYPES[dtype].bytes, "activation");
    try {
      use({ buffer, dtype, offset: 0, length });
    } finally {
      this.#pool.release(buffer);
    }
  }

  dispatch(
    source: KernelSource,
    spans: readonly Span[],
    params: Readonly<Record<string, number>>,
    groups: number | readonly [number, number, number],
    table?: Uint32Array,
  ): void {
    this.#gpu.check();
    const grid = typeof groups === "number" ? fold(groups) : groups;
    if (grid[0] === 0 || grid[1] === 0 || grid[2] === 0) return;
    const bindings = spans.map((span) => this.#binding(span));
    const clash = this.#clash(source, bindings);
    if (clash !== undefined) {
      this.#withCopy(spans, clash, (copied) => this.dispatch(source, copied, params, grid, table));
      return;
    }
    const { slots, windows, offsets } = this.#place(source, bindings);
    const pipeline = this.#pipelines.get(source, slots);
    if (pipeline.space === "immediate") {
      const count = this.#encode(pipeline, offsets, params, this.#words, this.#floats, 0);
      const group = this.#bindGroup(pipeline, windows);
      this.#commands.dispatch(
        source.name,
        pipeline.pipeline,
        group,
        { immediates: this.#views[count]! },
        grid,
      );
      return;
    }
    const slot = this.#commands.uniformSlot(pipeline.parameterBytes);
    const end = this.#encode(pipeline, offsets, params, slot.words, slot.floats, slot.word);
    if (table !== undefined) slot.words.set(table, slot.word + 4 * Math.ceil((end - slot.word) / 4));
    const parameters = { group: this.#uniformGroup(pipeline.parameterBytes), offset: slot.offset };
    this.#commands.dispatch(
      source.name,
      pipeline.pipeline,
      this.#bindGroup(pipeline, windows),
      parameters,
      grid,
    );
  }

  #binding(span: Span): Binding {
    const buffer = this.resolve(span);
    const { bytes } = DTYPES[span.dtype];
    return { buffer, start: span.offset * bytes, end: (span.offset + span.length) * bytes };
  }

  /** Slots, what they show, and the first element of each operand in its slot. */
  #place(
    source: KernelSource,
    bindings: readonly Binding[],
  ): { slots: number[]; windows: Window[]; offsets: number[] } {
    const slots: number[] = [];
    const windows: Window[] = [];
    const first: number[] = [];
    for (const [i, binding] of bindings.entries()) {
      const type = source.operands[i]!.type;
      const shared = first.findIndex(
        (j) => bindings[j]!.buffer === binding.buffer && source.operands[j]!.type === type,
      );
      if (shared >= 0) {
        slots.push(shared);
        continue;
      }
      slots.push(windows.length);
      first.push(i);
      windows.push(this.#window(source, type, bindings, binding));
    }
    const offsets = bindings.map((binding, i) =>
      Math.floor((binding.start - windows[slots[i]!]!.base) / ELEMENT_BYTES[source.operands[i]!.type]),
    );
    return { slots, windows, offsets };
  }

  /** The whole buffer, or as much as the operands of one type in it need when it is larger than a binding. */
  #window(source: KernelSource, type: string, bindings: readonly Binding[], binding: Binding): Window {
    const { block } = binding.buffer;
    const { maxBindingBytes, bindingAlignment } = this.limits;
    if (block.bytes <= maxBindingBytes) return { id: block.id, gpu: block.gpu, base: 0, size: block.bytes };
    const sharing = bindings.filter(
      ({ buffer }, i) => buffer === binding.buffer && source.operands[i]!.type === type,
    );
    const start = Math.min(...sharing.map((b) => b.start));
    const base = Math.floor(start / bindingAlignment) * bindingAlignment;
    const size = Math.ceil((Math.max(...sharing.map((b) => b.end)) - base) / 16) * 16;
    if (size > maxBindingBytes) {
      throw new DeviceError(
        `webgpu ${source.name}: operands reach over ${size} bytes of one buffer, allowed: ${maxBindingBytes} on this device`,
      );
    }
    return { id: block.id, gpu: block.gpu, base, size: Math.max(16, size) };
  }

  /** An operand that is read from a buffer which another, of another element type, writes: WebGPU refuses that. */
  #clash(source: KernelSource, bindings: readonly Binding[]): number | undefined {
    for (let i = 0; i < bindings.length; i++) {
      for (let j = 0; j < i; j++) {
        const [a, b] = [source.operands[i]!, source.operands[j]!];
        if (bindings[i]!.buffer !== bindings[j]!.buffer || a.type === b.type) continue;
        if (a.write !== true && b.write !== true) continue;
        if (a.write === true && b.write === true) {
          throw new DeviceError(
            `webgpu ${source.name}: results "${a.name}" and "${b.name}" of different width lie in one buffer, allowed: buffers of their own`,
          );
        }
        return a.write === true ? j : i;
      }
    }
    return undefined;
  }

  /** Calls `use` with one span moved to memory of its own, at the same place modulo 16 bytes. */
  #withCopy(spans: readonly Span[], which: number, use: (spans: readonly Span[]) => void): void {
    const span = spans[which]!;
    const { buffer, start, end } = this.#binding(span);
    const from = Math.floor(start / 16) * 16;
    const bytes = Math.ceil((end - from) / 16) * 16;
    const element = DTYPES[span.dtype].bytes;
    this.withScratch(span.dtype, bytes / element, (scratch) => {
      this.#commands.copy(buffer.block.gpu, from, (scratch.buffer as WebgpuBuffer).block.gpu, 0, bytes);
      use(spans.with(which, { ...scratch, offset: (start - from) / element, length: span.length }));
    });
  }

  /** Writes the parameter block from word `at`. Returns the word after it. */
  #encode(
    pipeline: Pipeline,
    offsets: readonly number[],
    params: Readonly<Record<string, number>>,
    words: Uint32Array,
    floats: Float32Array,
    at: number,
  ): number {
    let word = at;
    for (const offset of offsets) words[word++] = offset;
    for (const { name, float } of pipeline.scalars) {
      const value = params[name]!;
      if (float) floats[word++] = value;
      else words[word++] = value;
    }
    return word;
  }

  #bindGroup(pipeline: Pipeline, windows: readonly Window[]): GPUBindGroup {
    let key = `${pipeline.operands.id}`;
    for (const { id, base, size } of windows) key += `|${id},${base},${size}`;
    const known = this.#groups.get(key);
    if (known !== undefined) return known;
    if (this.#groups.size >= MAX_BIND_GROUPS) this.#groups.clear();
    const group = this.#gpu.device.createBindGroup({
      layout: pipeline.operands.layout,
      entries: windows.map(({ gpu, base, size }, binding) => ({
        binding,
        resource: { buffer: gpu, offset: base, size },
      })),
    });
    this.#groups.set(key, group);
    return group;
  }

  #uniformGroup(bytes: number): GPUBindGroup {
    const size = Math.ceil(bytes / 16) * 16;
    let group = this.#uniformGroups.get(size);
    if (group === undefined) {
      group = this.#gpu.device.createBindGroup({
        layout: this.#pipelines.uniformLayout,
        entries: [{ binding: 0, resource: { buffer: this.#commands.uniforms, size } }],
      });
      this.#uniformGroups.set(size, group);
    }
    return group;
  }
}

/** Two dimensions for `groups` workgroups, as even as possible, with fewer than a row too many. */
export function fold(groups: number): readonly [number, number, number] {
  const y = Math.ceil(groups / MAX_GRID);
  return y <= 1 ? [groups, y, 1] : [Math.ceil(groups / y), y, 1];
}

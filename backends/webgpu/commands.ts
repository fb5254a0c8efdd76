/**
 * The command stream: one encoder with one open compute pass, submitted every so many commands. Everything that touches
 * device memory goes through it, so that kernels, uploads and reads happen in the order of their calls.
 *
 * @module
 */
import { USAGE } from "./constants.ts";
import type { GpuDevice } from "./device.ts";
import type { MappedCopy } from "./mapped-copy.ts";
import { UploadRing } from "./staging.ts";

/** Commands of a batch: enough to make submits cheap, few enough to keep the device fed. */
const BATCH = 96;
/** Bytes of uploads after which a batch is submitted, so that staging memory comes back. */
const UPLOAD_BATCH = 128 * 2 ** 20;
/** Bytes of parameters of one batch that do not fit immediates. */
const UNIFORM_BYTES = 2 ** 18;
/** Slots of the uniform buffer begin at multiples of this. */
const UNIFORM_ALIGNMENT = 256;

/** A place in the batch's uniform buffer. */
export interface UniformSlot {
  readonly words: Uint32Array;
  readonly floats: Float32Array;
  /** Byte offset in the buffer, and 4-byte offset in the arrays. */
  readonly offset: number;
  readonly word: number;
}

/** Device time of dispatches, by label. */
export interface PassTimer {
  /** The writes of a pass that holds one dispatch of `label`. */
  begin(label: string): GPUComputePassTimestampWrites | undefined;
  /** Records the reading of what began so far. Gives what is to be called once that is submitted. */
  resolve(encoder: GPUCommandEncoder): () => void;
}

/** Records and submits commands. */
export class Commands {
  readonly uploads: UploadRing;
  readonly uniforms: GPUBuffer;
  /** When set, every dispatch gets a pass of its own, and is timed. */
  timer: PassTimer | undefined;
  readonly #gpu: GpuDevice;
  readonly #words: Uint32Array<ArrayBuffer> = new Uint32Array(UNIFORM_BYTES / 4);
  readonly #floats: Float32Array = new Float32Array(this.#words.buffer);
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #pipeline: GPUComputePipeline | undefined;
  #group: GPUBindGroup | undefined;
  #count = 0;
  #uploaded = 0;
  #uniformBytes = 0;
  #discarded: GPUBuffer[] = [];

  constructor(gpu: GpuDevice, copy: MappedCopy) {
    this.#gpu = gpu;
    this.uploads = new UploadRing(gpu, copy);
    this.uniforms = gpu.device.createBuffer({
      size: UNIFORM_BYTES,
      usage: USAGE.UNIFORM | USAGE.COPY_DST,
    });
  }

  /** Room for `bytes` bytes of parameters of the next dispatch. May submit what came before. */
  uniformSlot(bytes: number): UniformSlot {
    const size = Math.ceil(bytes / UNIFORM_ALIGNMENT) * UNIFORM_ALIGNMENT;
    if (this.#uniformBytes + size > UNIFORM_BYTES) this.submit();
    const offset = this.#uniformBytes;
    this.#uniformBytes += size;
    return { words: this.#words, floats: this.#floats, offset, word: offset / 4 };
  }

  /**
   * Records one dispatch. `immediates` and `uniformOffset` carry its parameters: one of them is given.
   */
  dispatch(
    label: string,
    pipeline: GPUComputePipeline,
    group: GPUBindGroup,
    parameters:
      | { readonly immediates: Uint32Array<ArrayBuffer> }
      | { readonly group: GPUBindGroup; readonly offset: number },
    grid: readonly [number, number, number],
  ): void {
    const pass = this.#openPass(label);
    if (pipeline !== this.#pipeline) pass.setPipeline(pipeline);
    if (group !== this.#group) pass.setBindGroup(0, group);
    this.#pipeline = pipeline;
    this.#group = group;
    if ("immediates" in parameters) pass.setImmediates(0, parameters.immediates);
    else pass.setBindGroup(1, parameters.group, [parameters.offset]);
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    if (this.timer !== undefined) this.#closePass();
    this.#counted();
  }

  /** Records a copy; offsets and size are multiples of 4. */
  copy(
    source: GPUBuffer,
    sourceOffset: number,
    target: GPUBuffer,
    targetOffset: number,
    bytes: number,
  ): void {
    this.#closePass();
    this.#open().copyBufferToBuffer(source, sourceOffset, target, targetOffset, bytes);
    this.#counted();
  }

  /** Records the upload of at most `STAGING_BYTES` bytes. `bytes.length` and the offset are multiples of 4. */
  upload(bytes: Uint8Array, target: GPUBuffer, targetOffset: number): void {
    const staged = this.uploads.stage(bytes);
    this.#uploaded += bytes.length;
    this.copy(staged.buffer, staged.offset, target, targetOffset, Math.ceil(bytes.length / 4) * 4);
  }

  /** `upload` whose copying other threads do; recorded when that is done. */
  async uploadFrom(bytes: Uint8Array, target: GPUBuffer, targetOffset: number): Promise<void> {
    const staged = await this.uploads.stageFrom(bytes);
    this.#uploaded += bytes.length;
    this.copy(staged.buffer, staged.offset, target, targetOffset, Math.ceil(bytes.length / 4) * 4);
  }

  /** Destroys a buffer when no recorded command can need it any more. */
  discard(buffer: GPUBuffer): void {
    if (this.#encoder === undefined) buffer.destroy();
    else this.#discarded.push(buffer);
  }

  /** Hands everything recorded to the device. */
  submit(): void {
    const encoder = this.#encoder;
    if (encoder === undefined) return;
    this.#closePass();
    const timed = this.timer?.resolve(encoder);
    const remap = this.uploads.seal();
    if (this.#uniformBytes > 0) {
      this.#gpu.queue.writeBuffer(this.uniforms, 0, this.#words.buffer, 0, this.#uniformBytes);
    }
    this.#gpu.queue.submit([encoder.finish()]);
    if (this.#gpu.checks) this.#gpu.endScope("a command is invalid");
    remap();
    timed?.();
    for (const buffer of this.#discarded) buffer.destroy();
    this.#discarded = [];
    this.#encoder = undefined;
    this.#count = 0;
    this.#uploaded = 0;
    this.#uniformBytes = 0;
  }

  #counted(): void {
    this.#count++;
    if (this.#count >= BATCH || this.#uploaded >= UPLOAD_BATCH) this.submit();
  }

  #open(): GPUCommandEncoder {
    if (this.#encoder === undefined) {
      if (this.#gpu.checks) this.#gpu.beginScope("validation");
      this.#encoder = this.#gpu.device.createCommandEncoder();
    }
    return this.#encoder;
  }

  #openPass(label: string): GPUComputePassEncoder {
    if (this.#pass === undefined) {
      const timestampWrites = this.timer?.begin(label);
      this.#pass = this.#open().beginComputePass(timestampWrites === undefined ? {} : { timestampWrites });
    }
    return this.#pass;
  }

  #closePass(): void {
    this.#pass?.end();
    this.#pass = undefined;
    this.#pipeline = undefined;
    this.#group = undefined;
  }
}

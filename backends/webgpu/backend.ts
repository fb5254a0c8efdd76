/**
 * The WebGPU backend: buffers and kernels of one GPU. Calls record commands and return; `read` and `flush` wait.
 *
 * @module
 */
import type { Backend, BackendCapabilities, DeviceBuffer, Span } from "../../core/contracts/backend.ts";
import { bytesOf, DTYPES, type HostArray, newHostArray } from "../../core/contracts/dtype.ts";
import { ShapeError, StateError } from "../../core/contracts/errors.ts";
import type { Kernels } from "../../core/contracts/kernels.ts";
import type { MemoryAccount, MemoryCategory } from "../../core/contracts/memory.ts";
import type { BackendOptions } from "../../core/contracts/plugin.ts";
import { openAdapter } from "./adapter.ts";
import { BufferPool, WebgpuBuffer } from "./buffers.ts";
import { Commands } from "./commands.ts";
import { type GpuDevice, openDevice } from "./device.ts";
import { Dispatcher } from "./dispatch.ts";
import { copyRaw } from "./kernels/copy.ts";
import { webgpuKernels } from "./kernels/mod.ts";
import { findMappedCopy, type MappedCopy } from "./mapped-copy.ts";
import { parseSettings, type WebgpuSettings } from "./settings.ts";
import { ReadRing, type ReadSlot, STAGING_BYTES } from "./staging.ts";
import { type KernelTime, KernelTimer } from "./timer.ts";

/** One GPU. */
export class WebgpuBackend implements Backend {
  readonly name = "webgpu";
  readonly description: string;
  readonly capabilities: BackendCapabilities;
  readonly memory: MemoryAccount;
  readonly kernels: Kernels;
  readonly #gpu: GpuDevice;
  readonly #pool: BufferPool;
  readonly #commands: Commands;
  readonly #dispatcher: Dispatcher;
  readonly #reads: ReadRing;
  readonly #timer: KernelTimer | undefined;
  #disposed = false;

  constructor(gpu: GpuDevice, description: string, settings: WebgpuSettings, copy: MappedCopy) {
    this.#gpu = gpu;
    this.description = description;
    this.#commands = new Commands(gpu, copy);
    this.#pool = new BufferPool(gpu, settings.memoryLimit, (buffer) => {
      this.#dispatcher.forgetBindings();
      this.#commands.discard(buffer);
    });
    this.#dispatcher = new Dispatcher(gpu, this.#pool, this.#commands);
    this.#reads = new ReadRing(gpu, copy);
    if (settings.profile && gpu.features.timestamps) this.#timer = new KernelTimer(gpu, this.#reads);
    this.#commands.timer = this.#timer;
    this.memory = this.#pool.meter;
    this.kernels = webgpuKernels(this.#dispatcher);
    this.capabilities = {
      computeDTypes: gpu.features.f16 ? ["float32", "float16"] : ["float32"],
      maxBufferBytes: gpu.limits.maxBufferBytes,
    };
  }

  /** The device beneath, for tests and benchmarks. */
  get device(): GPUDevice {
    return this.#gpu.device;
  }

  /** Bytes taken from the device, in use or kept for reuse. */
  get reservedBytes(): number {
    return this.#pool.reserved;
  }

  /** Device time by kernel family since the last call; none without the setting `profile`. */
  async kernelTimes(): Promise<readonly KernelTime[]> {
    await this.flush();
    return this.#timer === undefined ? [] : this.#timer.take();
  }

  allocate(byteLength: number, category: MemoryCategory): DeviceBuffer {
    this.#check();
    return this.#pool.allocate(byteLength, category);
  }

  release(buffer: DeviceBuffer): void {
    this.#pool.release(this.#own(buffer));
  }

  relabel(buffer: DeviceBuffer, category: MemoryCategory): void {
    const own = this.#own(buffer);
    this.#pool.meter.move(own.category, category, own.byteLength);
    own.category = category;
  }

  write(target: Span, source: HostArray): void {
    this.#check();
    const buffer = this.#dispatcher.resolve(target);
    requireAlike("write", target, source);
    const bytes = bytesOf(source);
    this.#upload(target, buffer, target.offset * DTYPES[target.dtype].bytes, bytes);
  }

  async writeFrom(target: Span, source: HostArray): Promise<void> {
    this.#check();
    const buffer = this.#dispatcher.resolve(target);
    requireAlike("writeFrom", target, source);
    const bytes = bytesOf(source);
    const start = target.offset * DTYPES[target.dtype].bytes;
    if (!copyable(buffer, start, bytes.length)) {
      this.#upload(target, buffer, start, bytes);
      return;
    }
    const pieces: Promise<void>[] = [];
    for (let at = 0; at < bytes.length; at += STAGING_BYTES) {
      const piece = bytes.subarray(at, at + STAGING_BYTES);
      pieces.push(this.#commands.uploadFrom(piece, buffer.block.gpu, start + at));
    }
    await Promise.all(pieces);
    this.#check();
  }

  async read(source: Span): Promise<HostArray> {
    const host = newHostArray(source.dtype, source.length);
    await this.readInto(source, host);
    return host;
  }

  async readInto(source: Span, target: HostArray): Promise<void> {
    this.#check();
    const buffer = this.#dispatcher.resolve(source);
    requireAlike("readInto", source, target);
    const bytes = bytesOf(target);
    if (bytes.length === 0) return;
    const start = source.offset * DTYPES[source.dtype].bytes;
    const from = Math.floor(start / 4) * 4;
    const size = Math.ceil((start + bytes.length - from) / 4) * 4;
    // All copies are recorded before anything else can be: a read gives what was there when it was called.
    const slots: ReadSlot[] = [];
    for (let at = 0; at < size; at += STAGING_BYTES) {
      const length = Math.min(STAGING_BYTES, size - at);
      const slot = this.#reads.lend(length);
      this.#commands.copy(buffer.block.gpu, from + at, slot.buffer, 0, length);
      slots.push(slot);
    }
    this.#commands.submit();
    const collecting = slots.map((slot, i) => {
      const skip = i === 0 ? start - from : 0;
      const begin = from + i * STAGING_BYTES + skip - start;
      return this.#reads.collect(slot, skip, bytes.subarray(begin, from + (i + 1) * STAGING_BYTES - start));
    });
    await Promise.all(collecting);
  }

  hostView(): undefined {
    return undefined;
  }

  async flush(): Promise<void> {
    this.#check();
    this.#commands.submit();
    await this.#gpu.waitFor(this.#gpu.queue.onSubmittedWorkDone(), "waiting for the device");
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    // Nothing may be under way in the device's library when this thread ends: its answers would come to a thread that is
    // gone, which crashes the process.
    this.#commands.submit();
    await this.#gpu.queue.onSubmittedWorkDone().catch(() => {});
    await this.#commands.uploads.settle();
    await this.#reads.settle();
    await this.#gpu.close();
  }

  /** Copies to a range that need not begin or end at a multiple of four bytes, in pieces. */
  #upload(target: Span, buffer: WebgpuBuffer, start: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += STAGING_BYTES) {
      this.#uploadPiece(target, buffer, start + at, bytes.subarray(at, at + STAGING_BYTES));
    }
  }

  #uploadPiece(target: Span, buffer: WebgpuBuffer, start: number, bytes: Uint8Array): void {
    if (copyable(buffer, start, bytes.length)) {
      this.#commands.upload(bytes, buffer.block.gpu, start);
      return;
    }
    this.#dispatcher.withScratch("uint8", Math.ceil(bytes.length / 4) * 4, (scratch) => {
      this.#commands.upload(bytes, this.#own(scratch.buffer).block.gpu, 0);
      const raw = { ...target, dtype: "uint8" as const, offset: start, length: bytes.length };
      copyRaw(this.#dispatcher, { ...scratch, length: bytes.length }, raw);
    });
  }

  #own(buffer: DeviceBuffer): WebgpuBuffer {
    if (buffer instanceof WebgpuBuffer && buffer.pool === this.#pool) return buffer;
    throw new StateError("webgpu: a buffer of another device was given");
  }

  #check(): void {
    if (this.#disposed) throw new StateError("webgpu: the backend is used after dispose()");
    this.#gpu.check();
  }
}

/** Whether a range begins and ends where the device can copy: at multiples of four bytes, or at the buffer's end. */
function copyable(buffer: WebgpuBuffer, start: number, bytes: number): boolean {
  return start % 4 === 0 && (bytes % 4 === 0 || start + bytes === buffer.byteLength);
}

/** @throws ShapeError unless a host array has the form of the span. */
function requireAlike(call: string, span: Span, host: HostArray): void {
  if (newHostArray(span.dtype, 0).constructor === host.constructor && host.length === span.length) return;
  throw new ShapeError(
    `webgpu ${call}: ${host.constructor.name} of ${host.length} elements was given for ${span.dtype}[${span.length}]`,
  );
}

/** Opens a GPU. @throws ConfigError for bad settings, DeviceError when there is no such GPU. */
export async function createWebgpuBackend(options: BackendOptions): Promise<WebgpuBackend> {
  const settings = parseSettings(options.settings);
  const { gpu, adapter, description } = await openAdapter(settings, options);
  const device = await openDevice(gpu, adapter, settings);
  return new WebgpuBackend(device, description, settings, await findMappedCopy());
}

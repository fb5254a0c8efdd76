/**
 * Device buffers: a pool by size class, freed at points that the program decides.
 *
 * A released buffer is handed out again at once: commands of one queue run in order, so its next user cannot overtake
 * its last. Memory is counted at the size asked for. Buffers that nobody asked for again for long are destroyed.
 *
 * @module
 */
import type { DeviceBuffer } from "../../core/contracts/backend.ts";
import { DeviceError, StateError } from "../../core/contracts/errors.ts";
import type { MemoryCategory } from "../../core/contracts/memory.ts";
import { MemoryMeter } from "../../core/tensor/memory-meter.ts";
import { USAGE } from "./constants.ts";
import type { GpuDevice } from "./device.ts";

/** Memory on the device that outlives its users. */
interface Block {
  readonly gpu: GPUBuffer;
  readonly id: number;
  readonly bytes: number;
}

/** A free block and when it became so. */
interface FreeBlock {
  readonly block: Block;
  readonly since: number;
}

/** A buffer of this backend. */
export class WebgpuBuffer implements DeviceBuffer {
  readonly byteLength: number;
  category: MemoryCategory;
  readonly pool: BufferPool;
  #block: Block | undefined;

  constructor(pool: BufferPool, block: Block, byteLength: number, category: MemoryCategory) {
    this.pool = pool;
    this.#block = block;
    this.byteLength = byteLength;
    this.category = category;
  }

  /** The memory behind it. @throws StateError after release. */
  get block(): Block {
    if (this.#block === undefined) {
      throw new StateError(
        `webgpu: a ${this.category} buffer of ${this.byteLength} bytes is used after release`,
      );
    }
    return this.#block;
  }

  /** Takes its memory away. @throws StateError the second time. */
  take(): Block {
    const block = this.block;
    this.#block = undefined;
    return block;
  }
}

/** Smallest block: bindings begin at multiples of it. */
const SMALLEST = 256;
/** Steps between a power of two and the next: at most an eighth of a block is unused. */
const STEPS = 8;
/** Allocations after which a free block is given back to the device: several steps of a large model. */
const PATIENCE = 20_000;
/** Allocations between looks for such blocks. */
const SWEEP = 1024;

/** Bytes of the block for a request: the next step between two powers of two. */
export function blockBytes(byteLength: number): number {
  if (byteLength <= SMALLEST) return SMALLEST;
  const power = 2 ** Math.floor(Math.log2(byteLength));
  const step = Math.max(SMALLEST, power / STEPS);
  return Math.ceil(byteLength / step) * step;
}

/** Allocates, reuses and counts the buffers of a device. */
export class BufferPool {
  readonly meter: MemoryMeter = new MemoryMeter();
  readonly #gpu: GpuDevice;
  readonly #limit: number;
  /** Called with memory that the pool lets go, to be destroyed when no command needs it. */
  readonly #discard: (gpu: GPUBuffer) => void;
  readonly #free: Map<number, FreeBlock[]> = new Map();
  #reserved = 0;
  #idle = 0;
  #clock = 0;
  #ids = 0;

  constructor(gpu: GpuDevice, limit: number, discard: (gpu: GPUBuffer) => void) {
    this.#gpu = gpu;
    this.#limit = limit;
    this.#discard = discard;
  }

  /** Bytes taken from the device, in use or free. */
  get reserved(): number {
    return this.#reserved;
  }

  /** @throws DeviceError when the size is not possible, or over the memory limit. */
  allocate(byteLength: number, category: MemoryCategory): WebgpuBuffer {
    if (!Number.isSafeInteger(byteLength) || byteLength < 0 || byteLength > this.#gpu.limits.maxBufferBytes) {
      throw new DeviceError(
        `webgpu allocate: ${byteLength} ${category} bytes were asked for, allowed: 0 to ${this.#gpu.limits.maxBufferBytes}`,
      );
    }
    this.#clock++;
    if (this.#clock % SWEEP === 0) this.trim(this.#clock - PATIENCE);
    const bytes = Math.min(blockBytes(byteLength), this.#gpu.limits.maxBufferBytes);
    const block = this.#reuse(bytes) ?? this.#create(bytes, byteLength, category);
    this.meter.add(category, byteLength);
    return new WebgpuBuffer(this, block, byteLength, category);
  }

  release(buffer: WebgpuBuffer): void {
    const block = buffer.take();
    this.meter.remove(buffer.category, buffer.byteLength);
    const free = this.#free.get(block.bytes) ?? [];
    free.push({ block, since: this.#clock });
    this.#free.set(block.bytes, free);
    this.#idle += block.bytes;
  }

  /** Destroys blocks that have been free since before `since`: all of them unless given. */
  trim(since: number = Number.POSITIVE_INFINITY): void {
    for (const [bytes, free] of this.#free) {
      const kept = free.filter((entry) => entry.since >= since);
      if (kept.length === free.length) continue;
      for (const entry of free) {
        if (entry.since >= since) continue;
        this.#discard(entry.block.gpu);
        this.#reserved -= bytes;
        this.#idle -= bytes;
      }
      if (kept.length === 0) this.#free.delete(bytes);
      else this.#free.set(bytes, kept);
    }
  }

  /** The block of this size that was freed last. */
  #reuse(bytes: number): Block | undefined {
    const free = this.#free.get(bytes);
    const entry = free?.pop();
    if (entry === undefined) return undefined;
    if (free!.length === 0) this.#free.delete(bytes);
    this.#idle -= bytes;
    return entry.block;
  }

  #create(bytes: number, byteLength: number, category: MemoryCategory): Block {
    if (this.#reserved + bytes > this.#limit) this.trim();
    if (this.#reserved + bytes > this.#limit) {
      throw new DeviceError(
        `webgpu allocate: ${byteLength} ${category} bytes do not fit, ${this.#reserved - this.#idle} are in use, allowed: ${this.#limit} (setting memory-limit)`,
      );
    }
    const { device } = this.#gpu;
    this.#gpu.beginScope("out-of-memory");
    const gpu = device.createBuffer({
      size: bytes,
      usage: USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST,
    });
    this.#gpu.endScope(
      `out of memory: ${byteLength} ${category} bytes were asked for beside ${this.#reserved} taken`,
    );
    this.#reserved += bytes;
    return { gpu, id: this.#ids++, bytes };
  }
}

/**
 * The memory of one CPU device: a shared WebAssembly memory, in which JavaScript, WebAssembly, native libraries and the
 * threads of other ranks all see the same bytes.
 *
 * Its low megabyte belongs to the WebAssembly module (constants, packing buffers); the allocator owns the rest. A
 * shared memory never moves, so views stay valid when it grows; only views of the new part must be made anew.
 *
 * @module
 */
import type { DeviceBuffer, Span } from "../../core/contracts/backend.ts";
import { DTYPES, type DType, type HostArray, hostArray } from "../../core/contracts/dtype.ts";
import { DeviceError, ShapeError, StateError } from "../../core/contracts/errors.ts";
import type { MemoryCategory } from "../../core/contracts/memory.ts";
import { MemoryMeter } from "../../core/tensor/memory-meter.ts";
import { Allocator } from "./allocator.ts";
import type { Heap } from "./kernels/heap.ts";

const PAGE = 65536;
/** Pages of the low part; the build of the WebAssembly module checks that it fits. */
export const RESERVED_PAGES = 16;
/** Largest memory that 32-bit addresses reach: 4 GiB. */
const MAXIMUM_PAGES = 65536;
/** Memory grows at least this much at a time. */
const GROWTH_PAGES = 256;

/** A buffer of the CPU device. */
class CpuBuffer implements DeviceBuffer {
  readonly byteLength: number;
  category: MemoryCategory;
  readonly address: number;
  readonly owner: CpuMemory;
  released = false;

  constructor(owner: CpuMemory, address: number, byteLength: number, category: MemoryCategory) {
    this.owner = owner;
    this.address = address;
    this.byteLength = byteLength;
    this.category = category;
  }
}

/** Memories in use, so that two devices never hand out the same bytes. */
const taken = new WeakSet<WebAssembly.Memory>();

/** Buffers, scratch and views over one memory. */
export class CpuMemory implements Heap {
  readonly memory: WebAssembly.Memory;
  readonly meter: MemoryMeter = new MemoryMeter();
  readonly #allocator: Allocator;
  #scratch = { address: 0, bytes: 0 };
  #workspace: CpuBuffer | undefined;
  #disposed = false;
  #buffer: ArrayBufferLike;
  #float32: Float32Array;
  #float64: Float64Array;

  /**
   * @param given a shared memory to live in; a new one when absent.
   * @throws DeviceError when it is not shared or too small, StateError when another device lives in it.
   */
  constructor(given: WebAssembly.Memory | undefined) {
    const memory =
      given ?? new WebAssembly.Memory({ initial: RESERVED_PAGES, maximum: MAXIMUM_PAGES, shared: true });
    if (!(memory.buffer instanceof SharedArrayBuffer)) {
      throw new DeviceError(
        "cpu memory: the host memory is not shared, allowed: WebAssembly.Memory with shared: true",
      );
    }
    if (taken.has(memory)) throw new StateError("cpu memory: another cpu backend lives in this host memory");
    this.memory = memory;
    this.#allocator = new Allocator(RESERVED_PAGES * PAGE, MAXIMUM_PAGES * PAGE);
    this.#ensure(RESERVED_PAGES * PAGE, 0);
    taken.add(memory);
    this.#buffer = memory.buffer;
    this.#float32 = new Float32Array(this.#buffer);
    this.#float64 = new Float64Array(this.#buffer);
  }

  /** Bytes that a single buffer may have at most. */
  get maxBufferBytes(): number {
    return (MAXIMUM_PAGES - RESERVED_PAGES) * PAGE;
  }

  allocate(byteLength: number, category: MemoryCategory): DeviceBuffer {
    if (!(Number.isSafeInteger(byteLength) && byteLength >= 0)) {
      throw new ShapeError(
        `cpu allocate: ${byteLength} bytes were asked for, allowed: an integer of at least 0`,
      );
    }
    const address = this.#take(byteLength);
    this.meter.add(category, byteLength);
    return new CpuBuffer(this, address, byteLength, category);
  }

  release(buffer: DeviceBuffer): void {
    const own = this.#own(buffer);
    own.released = true;
    this.#allocator.free(own.address, own.byteLength);
    this.meter.remove(own.category, own.byteLength);
  }

  relabel(buffer: DeviceBuffer, category: MemoryCategory): void {
    const own = this.#own(buffer);
    this.meter.move(own.category, category, own.byteLength);
    own.category = category;
  }

  view(span: Span): HostArray {
    return this.at(span.dtype, this.address(span), span.length);
  }

  address(span: Span): number {
    const own = this.#own(span.buffer);
    const bytes = DTYPES[span.dtype].bytes;
    const { offset, length } = span;
    if (!(offset >= 0 && length >= 0 && (offset + length) * bytes <= own.byteLength)) {
      throw new ShapeError(
        `cpu span: ${span.dtype} elements ${offset} to ${offset + length} do not lie in a buffer of ${own.byteLength} bytes`,
      );
    }
    return own.address + offset * bytes;
  }

  at(dtype: DType, address: number, length: number): HostArray {
    return hostArray(dtype, this.#refresh(), address, length);
  }

  float32(): Float32Array {
    this.#refresh();
    return this.#float32;
  }

  float64(): Float64Array {
    this.#refresh();
    return this.#float64;
  }

  scratch(bytes: number): number {
    if (bytes > this.#scratch.bytes) {
      if (this.#scratch.bytes > 0) this.#allocator.free(this.#scratch.address, this.#scratch.bytes);
      this.#scratch = { address: 0, bytes: 0 };
      this.#scratch = { address: this.#take(bytes), bytes };
    }
    return this.#scratch.address;
  }

  workspace(length: number): Span {
    const bytes = 4 * length;
    if (this.#workspace === undefined || this.#workspace.byteLength < bytes) {
      if (this.#workspace !== undefined)
        this.#allocator.free(this.#workspace.address, this.#workspace.byteLength);
      this.#workspace = undefined;
      this.#workspace = new CpuBuffer(this, this.#take(bytes), bytes, "activation");
    }
    return { buffer: this.#workspace, dtype: "float32", offset: 0, length };
  }

  /** Gives the memory up; every later use throws StateError. */
  dispose(): void {
    this.#disposed = true;
    taken.delete(this.memory);
  }

  #own(buffer: DeviceBuffer): CpuBuffer {
    if (!(buffer instanceof CpuBuffer) || buffer.owner !== this) {
      throw new StateError("cpu buffer: the buffer is of another backend");
    }
    if (this.#disposed) throw new StateError("cpu buffer: used after its backend was disposed");
    if (buffer.released) {
      throw new StateError(
        `cpu buffer: used after release: ${buffer.category} buffer of ${buffer.byteLength} bytes`,
      );
    }
    return buffer;
  }

  #take(bytes: number): number {
    if (this.#disposed) throw new StateError("cpu allocate: the backend was disposed");
    const address = this.#allocator.allocate(bytes);
    if (address === undefined) throw this.#exhausted(bytes, this.maxBufferBytes);
    try {
      this.#ensure(this.#allocator.top, bytes);
    } catch (error) {
      this.#allocator.free(address, bytes);
      throw error;
    }
    return address;
  }

  /** Grows memory to at least `end` bytes. */
  #ensure(end: number, asked: number): void {
    const pages = this.memory.buffer.byteLength / PAGE;
    const needed = Math.ceil(end / PAGE);
    if (needed <= pages) return;
    const generous = Math.min(Math.max(needed, pages + GROWTH_PAGES), MAXIMUM_PAGES);
    for (const target of [generous, needed]) {
      try {
        this.memory.grow(target - pages);
        return;
      } catch {
        // A memory with a lower maximum of its own may still grow by just what is needed.
      }
    }
    throw this.#exhausted(asked, Math.max(0, (pages - RESERVED_PAGES) * PAGE));
  }

  #exhausted(bytes: number, limit: number): DeviceError {
    const { currentTotal } = this.meter.report();
    return new DeviceError(
      `cpu allocate: ${bytes} bytes do not fit beside the ${currentTotal} in use, allowed: ${limit} in all;` +
        " use more ranks, a smaller batch or activation checkpointing",
    );
  }

  /** Growth gives the memory a new buffer object; the views of the whole follow it. */
  #refresh(): ArrayBufferLike {
    const buffer = this.memory.buffer;
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.#float32 = new Float32Array(buffer);
      this.#float64 = new Float64Array(buffer);
    }
    return buffer;
  }
}

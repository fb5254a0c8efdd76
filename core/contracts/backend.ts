/**
 * Backend: the buffers and kernels of one device.
 *
 * The law:
 * - Work on one backend is ordered: a kernel sees the effects of every earlier `write` and kernel call. Calls return
 *   without waiting for the device; `flush` and `read` wait.
 * - `release` may be called while earlier work still uses the buffer: the backend keeps it until that work is done.
 * - A new buffer's contents are undefined: whoever allocates it writes every element that is read later.
 * - Every byte is counted in one category from `allocate` to `release`, at the size asked for.
 * - A buffer of zero bytes is legal everywhere; kernels over zero elements do nothing.
 *
 * @module
 */
import type { DType, HostArray } from "./dtype.ts";
import type { Kernels } from "./kernels.ts";
import type { MemoryAccount, MemoryCategory } from "./memory.ts";

/** A device allocation. Opaque outside its backend. */
export interface DeviceBuffer {
  readonly byteLength: number;
  readonly category: MemoryCategory;
}

/** A contiguous run of elements in a buffer. */
export interface Span {
  readonly buffer: DeviceBuffer;
  readonly dtype: DType;
  /** First element, counted in elements of `dtype`. */
  readonly offset: number;
  /** Number of elements. */
  readonly length: number;
}

/** What a backend can do. */
export interface BackendCapabilities {
  /** Dtypes that kernels compute in (storage of any dtype is always possible). */
  readonly computeDTypes: readonly DType[];
  /** Largest single buffer in bytes. */
  readonly maxBufferBytes: number;
}

/** One device. */
export interface Backend {
  /** Registered name, for example `"cpu"`. */
  readonly name: string;
  /** One line for people: device, library, threads. */
  readonly description: string;
  readonly capabilities: BackendCapabilities;
  readonly memory: MemoryAccount;
  readonly kernels: Kernels;

  /** @throws DeviceError when the device has not that much memory left. */
  allocate(byteLength: number, category: MemoryCategory): DeviceBuffer;
  /** Frees a buffer. Releasing twice throws StateError. */
  release(buffer: DeviceBuffer): void;
  /** Counts a live buffer under another category from now on; its bytes stay where they are. */
  relabel(buffer: DeviceBuffer, category: MemoryCategory): void;
  /** Copies host elements into a span of the same dtype and length. The source may be reused on return. */
  write(target: Span, source: HostArray): void;
  /**
   * `write` without holding this thread up: when it resolves, the elements are there for all work called after that. Until
   * then `source`, which may be shared memory, and the span's content belong to the call.
   * @throws ShapeError, by rejection, when dtype or length differ.
   */
  writeFrom(target: Span, source: HostArray): Promise<void>;
  /** A host copy of a span, after all earlier work on it. */
  read(source: Span): Promise<HostArray>;
  /**
   * Replaces the content of `target` by a span of the same dtype and length, after all earlier work on it; work called
   * later is not seen. The bytes go from memory that the device wrote straight to `target`, which may be shared memory and
   * belongs to the call until it resolves. @throws ShapeError, by rejection, when dtype or length differ.
   */
  readInto(source: Span, target: HostArray): Promise<void>;
  /**
   * The span's own memory, when the device's memory is the host's; `undefined` otherwise. A view is valid until its
   * buffer is released. Collectives and checkpoints use it to avoid copies.
   */
  hostView(span: Span): HostArray | undefined;
  /** Ends a batch: resolves when all earlier work is done. */
  flush(): Promise<void>;
  /** Frees the device. The backend is unusable afterwards. */
  dispose(): Promise<void>;
}

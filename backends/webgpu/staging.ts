/**
 * Host transfers through persistent mapped buffers: uploads through a ring that stays mapped while it is filled, reads
 * through a ring that is mapped when the device is done. Fresh buffers, and `queue.writeBuffer`, are four times slower.
 *
 * @module
 */
import { MAP, USAGE } from "./constants.ts";
import type { GpuDevice } from "./device.ts";
import type { MappedCopy } from "./mapped-copy.ts";

/** Largest staging buffer: longer transfers go in pieces. */
export const STAGING_BYTES: number = 64 * 2 ** 20;
const SMALLEST_UPLOAD = 2 ** 20;
const SMALLEST_READ = 2 ** 16;
/**
 * Bytes of staging buffers to keep, each way: what a step of a sharded run has in flight. Making one anew costs more than
 * the transfer, because it is zeroed.
 */
const KEEP = 16 * STAGING_BYTES;

/** The power of two that holds `bytes`. */
function classOf(bytes: number, least: number): number {
  return Math.max(least, 2 ** Math.ceil(Math.log2(Math.max(1, bytes))));
}

/** Takes the smallest buffer that holds `bytes` out of `idle`, if there is one. */
function take<T extends { readonly bytes: number }>(idle: T[], bytes: number): T | undefined {
  let best = -1;
  for (const [i, { bytes: size }] of idle.entries()) {
    if (size >= bytes && (best < 0 || size < idle[best]!.bytes)) best = i;
  }
  return best < 0 ? undefined : idle.splice(best, 1)[0];
}

/** A staging buffer that is mapped for writing. */
interface Upload {
  readonly buffer: GPUBuffer;
  readonly bytes: number;
  used: number;
}

/** A place in a staging buffer that was filled and waits to be copied. */
export interface Staged {
  readonly buffer: GPUBuffer;
  readonly offset: number;
}

/** Fills mapped buffers; what was filled is copied by the commands of the batch, after which it is mapped again. */
export class UploadRing {
  readonly #gpu: GpuDevice;
  readonly #copy: MappedCopy;
  readonly #idle: Upload[] = [];
  /** Copies to staging memory that other threads make. */
  readonly #copying: Set<Promise<void>> = new Set();
  /** Buffers on their way back to idle. */
  readonly #mapping: Set<Promise<void>> = new Set();
  #filling: Upload[] = [];
  #kept = 0;

  constructor(gpu: GpuDevice, copy: MappedCopy) {
    this.#gpu = gpu;
    this.#copy = copy;
  }

  /** `stage`, made by other threads. The place is good for the batch that is open when this resolves. */
  async stageFrom(bytes: Uint8Array): Promise<Staged> {
    const upload = take(this.#idle, bytes.length) ?? this.#create(classOf(bytes.length, SMALLEST_UPLOAD));
    const copying = this.#copy.fill(upload.buffer, bytes);
    this.#copying.add(copying);
    try {
      await copying;
    } finally {
      this.#copying.delete(copying);
    }
    upload.used = upload.bytes;
    this.#filling.push(upload);
    return { buffer: upload.buffer, offset: 0 };
  }

  /** Copies at most `STAGING_BYTES` bytes to staging memory; their place starts at a multiple of 16. */
  stage(bytes: Uint8Array): Staged {
    const padded = Math.ceil(bytes.length / 16) * 16;
    const upload = this.#room(padded);
    const offset = upload.used;
    new Uint8Array(upload.buffer.getMappedRange(offset, padded)).set(bytes);
    upload.used += padded;
    return { buffer: upload.buffer, offset };
  }

  /** Unmaps what was filled: the batch may be submitted. Gives what maps it again after that. */
  seal(): () => void {
    const sealed = this.#filling;
    this.#filling = [];
    for (const { buffer } of sealed) buffer.unmap();
    return () => {
      for (const upload of sealed) this.#recycle(upload);
    };
  }

  /** Resolves when no copy is under way, and every buffer that was given back has been mapped again, or failed to. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#copying, ...this.#mapping]);
  }

  #room(bytes: number): Upload {
    const current = this.#filling.at(-1);
    if (current !== undefined && current.used + bytes <= current.bytes) return current;
    const upload = take(this.#idle, bytes) ?? this.#create(classOf(bytes, SMALLEST_UPLOAD));
    this.#filling.push(upload);
    return upload;
  }

  #create(bytes: number): Upload {
    const buffer = this.#gpu.device.createBuffer({
      size: bytes,
      usage: USAGE.MAP_WRITE | USAGE.COPY_SRC,
      mappedAtCreation: true,
    });
    this.#kept += bytes;
    return { buffer, bytes, used: 0 };
  }

  #recycle(upload: Upload): void {
    if (this.#kept > KEEP) {
      this.#kept -= upload.bytes;
      upload.buffer.destroy();
      return;
    }
    const mapped = upload.buffer
      .mapAsync(MAP.WRITE)
      .then(
        () => {
          upload.used = 0;
          this.#idle.push(upload);
        },
        // Only a lost or closed device fails to map, which is reported by itself.
        () => {},
      )
      .finally(() => this.#mapping.delete(mapped));
    this.#mapping.add(mapped);
  }
}

/** A buffer to read from. */
export interface ReadSlot {
  readonly buffer: GPUBuffer;
  readonly bytes: number;
}

/** Lends buffers that the device copies to and the host maps. */
export class ReadRing {
  readonly #gpu: GpuDevice;
  readonly #copy: MappedCopy;
  readonly #idle: ReadSlot[] = [];
  /** Reads that were begun. */
  readonly #collecting: Set<Promise<void>> = new Set();
  #kept = 0;

  constructor(gpu: GpuDevice, copy: MappedCopy) {
    this.#gpu = gpu;
    this.#copy = copy;
  }

  /** Resolves when no read is under way. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#collecting);
  }

  /** A slot of at least `bytes` bytes. */
  lend(bytes: number): ReadSlot {
    const kept = take(this.#idle, bytes);
    if (kept !== undefined) {
      this.#kept -= kept.bytes;
      return kept;
    }
    const size = classOf(bytes, SMALLEST_READ);
    const buffer = this.#gpu.device.createBuffer({ size, usage: USAGE.MAP_READ | USAGE.COPY_DST });
    return { buffer, bytes: size };
  }

  /** Copies a slot's bytes from `skip` on to `target` once the commands submitted so far are done; takes it back. */
  collect(slot: ReadSlot, skip: number, target: Uint8Array): Promise<void> {
    const collecting = this.#collect(slot, skip, target).finally(() => this.#collecting.delete(collecting));
    this.#collecting.add(collecting);
    return collecting;
  }

  async #collect(slot: ReadSlot, skip: number, target: Uint8Array): Promise<void> {
    const bytes = Math.ceil((skip + target.length) / 4) * 4;
    await this.#gpu.waitFor(slot.buffer.mapAsync(MAP.READ, 0, bytes), "reading device memory");
    await this.#copy.drain(target, slot.buffer, skip);
    slot.buffer.unmap();
    if (this.#kept + slot.bytes > KEEP) {
      slot.buffer.destroy();
      return;
    }
    this.#kept += slot.bytes;
    this.#idle.push(slot);
  }
}

/**
 * A device that counts and does nothing else: no buffer has memory, no kernel computes. What a program allocates and
 * frees on it, it would allocate and free on a real one, in the same order.
 *
 * @module
 */
import type { Backend, DeviceBuffer } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType, newHostArray } from "../../../core/contracts/dtype.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import type { MemoryCategory } from "../../../core/contracts/memory.ts";
import { MemoryMeter } from "../../../core/tensor/memory-meter.ts";

/** A buffer without memory. */
interface CountedBuffer extends DeviceBuffer {
  category: MemoryCategory;
}

const nothing = (): void => {};
const later = async (): Promise<void> => {};

/** Every kernel there is, and those to come. */
const KERNELS: Kernels = new Proxy({} as Kernels, { get: () => nothing });

/** A counting device. What is read from it is zeros. */
export function countingBackend(): Backend {
  const meter = new MemoryMeter();
  return {
    name: "counting",
    description: "counts memory, computes nothing",
    capabilities: {
      computeDTypes: Object.keys(DTYPES) as DType[],
      maxBufferBytes: Number.MAX_SAFE_INTEGER,
    },
    memory: meter,
    kernels: KERNELS,
    allocate(byteLength, category): CountedBuffer {
      meter.add(category, byteLength);
      return { byteLength, category };
    },
    release: ({ category, byteLength }) => meter.remove(category, byteLength),
    relabel(buffer, category) {
      const own = buffer as CountedBuffer;
      meter.move(own.category, category, own.byteLength);
      own.category = category;
    },
    write: nothing,
    writeFrom: later,
    read: async ({ dtype, length }) => newHostArray(dtype, length),
    readInto: later,
    // A view, so that collectives take nothing for staging; without elements, as nobody looks at them.
    hostView: ({ dtype }) => newHostArray(dtype, 0),
    flush: later,
    dispose: later,
  };
}

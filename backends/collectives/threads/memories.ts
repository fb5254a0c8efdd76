/**
 * Where a rank's arrays are for the other ranks: in its host memory or a window of its staging memory, read in place, or
 * else in a part of its staging memory to which they are copied first.
 *
 * @module
 */
import type { SharedWindow } from "../../../core/contracts/collective.ts";
import { DTYPES, type DType, type HostArray, hostArray } from "../../../core/contracts/dtype.ts";
import {
  createHostMemory,
  growMemory,
  HOST_MEMORY_RESERVED,
  isOfHostMemory,
  peerBuffer,
} from "../../../core/runtime/host-memory.ts";
import { copyBytes, windowOf } from "../elements.ts";
import { checkWindow } from "../held-shares.ts";

/** The memories of one rank. */
export interface RankMemories {
  readonly host: WebAssembly.Memory;
  readonly staging: WebAssembly.Memory;
}

/** Where an array starts, for peers. */
export interface Place {
  readonly memory: keyof RankMemories;
  /** In bytes. */
  readonly offset: number;
}

/** An array that peers can reach, until `release`. */
export interface Exposed extends Place {
  /** The array as peers see it: itself, or its staged copy. */
  readonly view: HostArray;
  release(): void;
}

/** The memories of a new rank. */
export function createRankMemories(): RankMemories {
  return { host: createHostMemory(), staging: createHostMemory() };
}

/** A peer's array of `length` elements, `begin` elements after its place. */
export function peerArray(
  peer: RankMemories,
  place: Place,
  dtype: DType,
  begin: number,
  length: number,
): HostArray {
  const { bytes } = DTYPES[dtype];
  const offset = place.offset + begin * bytes;
  return hostArray(dtype, peerBuffer(peer[place.memory], offset + length * bytes), offset, length);
}

/** Part of the staging memory. */
interface Region {
  readonly begin: number;
  readonly end: number;
}

/** Makes one rank's arrays visible to its peers. */
export class Exposer {
  readonly #memories: RankMemories;
  /** Staged regions in use, by offset: few, as many as there are operations under way. */
  #staged: Region[] = [];

  constructor(memories: RankMemories) {
    this.#memories = memories;
  }

  /** Peers read `array` where it is, or a copy of what it holds now. @throws DeviceError when staging is full. */
  expose(array: HostArray, dtype: DType): Exposed {
    for (const memory of ["host", "staging"] as const) {
      if (!isOfHostMemory(this.#memories[memory], array.buffer)) continue;
      const view = windowOf(array, dtype, 0, array.length);
      return { memory, offset: array.byteOffset, view, release() {} };
    }
    const region = this.#reserve(array.byteLength);
    const view = hostArray(dtype, this.#memories.staging.buffer, region.begin, array.length);
    copyBytes(view, array);
    return { memory: "staging", offset: region.begin, view, release: () => this.#free(region) };
  }

  /** Memory in which arrays are exposed in place. @throws DeviceError when staging is full. */
  window(byteLength: number): SharedWindow {
    checkWindow(byteLength);
    const region = this.#reserve(byteLength);
    const bytes = new Uint8Array(this.#memories.staging.buffer, region.begin, byteLength);
    return { bytes, release: () => this.#free(region) };
  }

  #free(region: Region): void {
    this.#staged = this.#staged.filter((other) => other !== region);
  }

  /** First fit among the regions in use. */
  #reserve(bytes: number): Region {
    const size = Math.ceil(bytes / 64) * 64;
    let begin = HOST_MEMORY_RESERVED;
    let index = 0;
    for (; index < this.#staged.length; index++) {
      const used = this.#staged[index]!;
      if (used.begin - begin >= size) break;
      begin = used.end;
    }
    growMemory(this.#memories.staging, begin + size);
    const region = { begin, end: begin + size };
    this.#staged.splice(index, 0, region);
    return region;
  }
}

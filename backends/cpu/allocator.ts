/**
 * A heap allocator over a growable range of addresses: best fit, with free neighbours joined at once.
 *
 * It keeps its books outside the memory it manages and depends on nothing but the order of calls, so equal programs get
 * equal addresses.
 *
 * @module
 */

/** Addresses are multiples of this: a cache line, and more than any SIMD load asks for. */
export const ALIGNMENT = 64;

/** A free range. */
interface Hole {
  begin: number;
  end: number;
}

/** Hands out ranges of `[base, limit)`. Sizes are rounded up to the alignment. */
export class Allocator {
  readonly base: number;
  readonly limit: number;
  /** End of what was ever handed out; everything above is free. */
  #top: number;
  /** Free ranges below the top, by address, never adjacent. */
  readonly #holes: Hole[] = [];

  constructor(base: number, limit: number) {
    this.base = align(base);
    this.limit = limit;
    this.#top = this.base;
  }

  /** Bytes from the start of memory that must exist for what is handed out. */
  get top(): number {
    return this.#top;
  }

  /** The address of `size` free bytes, or `undefined` when no range is long enough. */
  allocate(size: number): number | undefined {
    const bytes = align(Math.max(size, 1));
    let best: Hole | undefined;
    let bestIndex = -1;
    for (const [index, hole] of this.#holes.entries()) {
      const length = hole.end - hole.begin;
      if (length < bytes || (best !== undefined && length >= best.end - best.begin)) continue;
      best = hole;
      bestIndex = index;
      if (length === bytes) break;
    }
    if (best === undefined) {
      const address = this.#top;
      if (address + bytes > this.limit) return undefined;
      this.#top = address + bytes;
      return address;
    }
    const address = best.begin;
    best.begin += bytes;
    if (best.begin === best.end) this.#holes.splice(bestIndex, 1);
    return address;
  }

  /** Takes back what `allocate(size)` gave. */
  free(address: number, size: number): void {
    const bytes = align(Math.max(size, 1));
    const holes = this.#holes;
    const at = this.#firstAfter(address);
    const before = holes[at - 1];
    const after = holes[at];
    const end = address + bytes;
    if (before !== undefined && before.end === address) {
      before.end = end;
      if (after !== undefined && after.begin === end) {
        before.end = after.end;
        holes.splice(at, 1);
      }
    } else if (after !== undefined && after.begin === end) {
      after.begin = address;
    } else {
      holes.splice(at, 0, { begin: address, end });
    }
    const last = holes.at(-1);
    if (last !== undefined && last.end === this.#top) {
      this.#top = last.begin;
      holes.pop();
    }
  }

  #firstAfter(address: number): number {
    let low = 0;
    let high = this.#holes.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#holes[middle]!.begin < address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

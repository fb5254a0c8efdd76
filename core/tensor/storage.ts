/**
 * Storage: one device buffer with a count of its holders (tensor handles and nodes of the autograd tape). The buffer is
 * freed when the last holder lets go, at a point that the program's order decides.
 *
 * @module
 */
import type { Backend, DeviceBuffer } from "../contracts/backend.ts";
import { StateError } from "../contracts/errors.ts";

/** A counted device buffer. A new one has one holder. */
export class Storage {
  readonly backend: Backend;
  readonly buffer: DeviceBuffer;
  #holders = 1;

  constructor(backend: Backend, buffer: DeviceBuffer) {
    this.backend = backend;
    this.buffer = buffer;
  }

  /** Whether exactly one holder is left, who may then write in place. */
  get exclusive(): boolean {
    return this.#holders === 1;
  }

  retain(): this {
    if (this.#holders === 0) throw new StateError("Cannot retain a storage: it was freed");
    this.#holders++;
    return this;
  }

  release(): void {
    if (this.#holders === 0) throw new StateError("Cannot release a storage: it was freed already");
    if (--this.#holders === 0) this.backend.release(this.buffer);
  }
}

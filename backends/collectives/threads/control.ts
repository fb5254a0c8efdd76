/**
 * The control memory of a job, seen by all ranks and the launcher: who failed and why, whether to stop, one doorbell
 * per rank, and a pool from which groups get their blocks.
 *
 * A doorbell is a counter. Whoever changes something that a rank may wait for changes it first and rings second; a rank
 * reads its bell, looks, and sleeps only while the bell still has the value it read: no wake-up can be lost.
 *
 * Layout in bytes: pool top (4), stop flag (4), padding to 64; the job's fault; bells, 64 apart; groups' blocks.
 *
 * @module
 */
import { createSharedMemory, growMemory, peerBuffer } from "../../../core/runtime/host-memory.ts";
import { FAULT_BYTES, type Fault, readFault, writeFault } from "./fault.ts";

const POOL_TOP = 0;
const STOP = 1;
const FAULT_AT = 64;
const BELLS_AT: number = FAULT_AT + FAULT_BYTES;
const LINE = 64;
/** 1 GiB of address space for groups' blocks, a few KiB each. */
const MAXIMUM_PAGES = 16384;

/** One thread's view of the control memory. */
export class Control {
  readonly memory: WebAssembly.Memory;
  readonly #words: Int32Array;

  constructor(memory: WebAssembly.Memory) {
    this.memory = memory;
    this.#words = new Int32Array(memory.buffer);
  }

  /** A new job's control memory. */
  static create(worldSize: number): Control {
    const bytes = BELLS_AT + worldSize * LINE;
    const control = new Control(createSharedMemory(Math.ceil(bytes / 65536), MAXIMUM_PAGES));
    Atomics.store(control.#words, POOL_TOP, bytes);
    return control;
  }

  /** Reserves zeroed bytes for good; returns their offset, a multiple of 64. @throws DeviceError when the pool is full. */
  allocate(bytes: number): number {
    const size = Math.ceil(bytes / LINE) * LINE;
    const offset = Atomics.add(this.#words, POOL_TOP, size);
    growMemory(this.memory, offset + size);
    return offset;
  }

  /** The memory's buffer, in which an allocation that ends at `bytes` is visible. */
  buffer(bytes: number): ArrayBufferLike {
    return peerBuffer(this.memory, bytes);
  }

  ring(rank: number): void {
    const bell = bellIndex(rank);
    Atomics.add(this.#words, bell, 1);
    Atomics.notify(this.#words, bell);
  }

  /** The rank's bell as it is now. */
  listen(rank: number): number {
    return Atomics.load(this.#words, bellIndex(rank));
  }

  /** Sleeps, without blocking the thread, while the rank's bell is `heard`. */
  async sleep(rank: number, heard: number): Promise<void> {
    const wait = Atomics.waitAsync(this.#words, bellIndex(rank), heard);
    if (wait.async) await wait.value;
  }

  /** Why the job failed, if it did. */
  fault(): Fault | undefined {
    return readFault(this.memory.buffer, FAULT_AT);
  }

  /** Fails the job, unless it has failed already, and wakes all ranks. */
  fail(worldSize: number, fault: Fault): void {
    writeFault(this.memory.buffer, FAULT_AT, fault);
    for (let rank = 0; rank < worldSize; rank++) this.ring(rank);
  }

  get stopRequested(): boolean {
    return Atomics.load(this.#words, STOP) !== 0;
  }

  requestStop(): void {
    Atomics.store(this.#words, STOP, 1);
  }
}

function bellIndex(rank: number): number {
  return (BELLS_AT + rank * LINE) / 4;
}

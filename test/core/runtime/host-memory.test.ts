import { expect, test } from "bun:test";
import { DeviceError } from "../../../core/contracts/errors.ts";
import {
  createHostMemory,
  createSharedMemory,
  growMemory,
  HOST_MEMORY_RESERVED,
  isOfHostMemory,
} from "../../../core/runtime/host-memory.ts";

test("a host memory knows its buffers from before it grew, and no others", () => {
  const memory = createHostMemory();
  const before = memory.buffer;
  growMemory(memory, 5 * 65536);
  expect(memory.buffer.byteLength).toBe(5 * 65536);
  expect(before).not.toBe(memory.buffer);
  expect(isOfHostMemory(memory, before)).toBe(true);
  expect(isOfHostMemory(memory, memory.buffer)).toBe(true);
  expect(isOfHostMemory(memory, createHostMemory().buffer)).toBe(false);
  expect(isOfHostMemory(memory, new SharedArrayBuffer(65536))).toBe(false);
  expect(isOfHostMemory(memory, new ArrayBuffer(65536))).toBe(false);
});

test("who overwrites the reserved bytes loses recognition of old buffers, not correctness", () => {
  const memory = createHostMemory();
  const before = memory.buffer;
  growMemory(memory, 2 * 65536);
  new Uint8Array(memory.buffer, 0, HOST_MEMORY_RESERVED).fill(0);
  expect(isOfHostMemory(memory, before)).toBe(false);
  expect(isOfHostMemory(memory, memory.buffer)).toBe(true);
});

test("a memory does not shrink, and growing beyond its maximum is a DeviceError", () => {
  const memory = createSharedMemory(1, 2);
  expect(growMemory(memory, 10).byteLength).toBe(65536);
  expect(() => growMemory(memory, 3 * 65536)).toThrow(DeviceError);
});

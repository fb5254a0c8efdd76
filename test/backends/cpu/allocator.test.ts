import { expect, test } from "bun:test";
import fc from "fast-check";
import { ALIGNMENT, Allocator } from "../../../backends/cpu/allocator.ts";

const LIMIT = 1 << 16;

test("ranges are aligned, within bounds and never overlap, and all come back as one", () => {
  const steps = fc.array(fc.tuple(fc.boolean(), fc.nat(5000), fc.nat()), { maxLength: 200 });
  fc.assert(
    fc.property(steps, (script) => {
      const allocator = new Allocator(100, LIMIT);
      const live: { address: number; size: number }[] = [];
      for (const [take, size, which] of script) {
        if (take || live.length === 0) {
          const address = allocator.allocate(size);
          if (address === undefined) continue;
          expect(address % ALIGNMENT).toBe(0);
          expect(address).toBeGreaterThanOrEqual(100);
          expect(address + size).toBeLessThanOrEqual(LIMIT);
          for (const other of live) {
            expect(
              address + Math.max(size, 1) <= other.address ||
                other.address + Math.max(other.size, 1) <= address,
            ).toBe(true);
          }
          live.push({ address, size });
        } else {
          const [gone] = live.splice(which % live.length, 1);
          allocator.free(gone!.address, gone!.size);
        }
      }
      for (const { address, size } of live) allocator.free(address, size);
      expect(allocator.top).toBe(allocator.base);
      expect(allocator.allocate(LIMIT - 128)).toBe(128);
    }),
  );
});

test("the smallest hole that fits is taken", () => {
  const allocator = new Allocator(0, LIMIT);
  const large = allocator.allocate(1024)!;
  allocator.allocate(64);
  const small = allocator.allocate(256)!;
  allocator.allocate(64);
  allocator.free(large, 1024);
  allocator.free(small, 256);
  expect(allocator.allocate(200)).toBe(small);
  expect(allocator.allocate(200)).toBe(large);
});

test("what does not fit is refused, and nothing is lost by it", () => {
  const allocator = new Allocator(0, 1024);
  expect(allocator.allocate(1025)).toBeUndefined();
  expect(allocator.allocate(1024)).toBe(0);
  expect(allocator.allocate(1)).toBeUndefined();
});

import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  createRankMemories,
  type Exposed,
  Exposer,
  peerArray,
} from "../../../../backends/collectives/threads/memories.ts";
import { ShapeError } from "../../../../core/contracts/errors.ts";

test("staged arrays never overlap while they are exposed, and room is used again", () => {
  const step = fc.record({ length: fc.nat(3000), release: fc.nat(5), keep: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const memories = createRankMemories();
      const exposer = new Exposer(memories);
      const live: { readonly exposed: Exposed; readonly array: Float32Array }[] = [];
      steps.forEach(({ length, release, keep }, index) => {
        const array = new Float32Array(length).fill(index + 1);
        live.push({ exposed: exposer.expose(array, "float32"), array });
        if (!keep) live.splice(release % live.length, 1)[0]!.exposed.release();
        for (const { exposed, array } of live) {
          expect(peerArray(memories, exposed, "float32", 0, array.length)).toEqual(array);
        }
      });
    }),
    { numRuns: 20 },
  );
});

test("equal arrays exposed and released in turn take no more room than one", () => {
  const exposer = new Exposer(createRankMemories());
  const offsets = Array.from({ length: 100 }, () => {
    const exposed = exposer.expose(new Float32Array(50_000), "float32");
    exposed.release();
    return exposed.offset;
  });
  expect(new Set(offsets).size).toBe(1);
});

test("arrays in host memory are exposed in place", () => {
  const memories = createRankMemories();
  const array = new Int32Array(memories.host.buffer, 128, 8);
  const exposed = new Exposer(memories).expose(array.subarray(2), "int32");
  expect(exposed).toMatchObject({ memory: "host", offset: 136 });
  expect(exposed.view.buffer).toBe(memories.host.buffer);
});

test("windows and staged arrays never overlap, and what lies in a window is exposed in place", () => {
  const step = fc.record({
    length: fc.nat(3000),
    window: fc.boolean(),
    release: fc.nat(5),
    keep: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const memories = createRankMemories();
      const exposer = new Exposer(memories);
      const live: { readonly exposed: Exposed; readonly array: Float32Array; release(): void }[] = [];
      steps.forEach(({ length, window, release, keep }, index) => {
        if (window) {
          const { bytes, release } = exposer.window(4 * length);
          const array = new Float32Array(bytes.buffer, bytes.byteOffset, length).fill(index + 1);
          const exposed = exposer.expose(array, "float32");
          expect(exposed).toMatchObject({ memory: "staging", offset: array.byteOffset });
          expect(array.byteOffset % 64).toBe(0);
          exposed.release();
          live.push({ exposed, array, release });
        } else {
          const array = new Float32Array(length).fill(index + 1);
          const exposed = exposer.expose(array, "float32");
          live.push({ exposed, array, release: () => exposed.release() });
        }
        if (!keep) live.splice(release % live.length, 1)[0]!.release();
        for (const { exposed, array } of live) {
          expect(peerArray(memories, exposed, "float32", 0, array.length)).toEqual(array);
        }
      });
    }),
    { numRuns: 20 },
  );
});

test("a window of no number of bytes is refused", () => {
  const exposer = new Exposer(createRankMemories());
  for (const bytes of [-1, 1.5, Number.NaN]) expect(() => exposer.window(bytes)).toThrow(ShapeError);
});

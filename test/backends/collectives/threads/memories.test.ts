import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  createRankMemories,
  type Exposed,
  Exposer,
  peerArray,
} from "../../../../backends/collectives/threads/memories.ts";

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

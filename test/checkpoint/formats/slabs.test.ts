import { expect, test } from "bun:test";
import fc from "fast-check";
import { volume } from "../../../checkpoint/boxes.ts";
import { cutLarge, slabsOf } from "../../../checkpoint/formats/slabs.ts";
import { cutBox, patternTensor } from "../states.ts";

const shapes = fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 4 });
const limits = fc.integer({ min: 1, max: 200 });

test("slabs are the tensor when they are put behind one another, and as small as rows allow", () => {
  fc.assert(
    fc.property(shapes, limits, (shape, maxBytes) => {
      const tensor = patternTensor("t", "int16", shape);
      const slabs = [...slabsOf(shape, 2, maxBytes)];
      const joined = Buffer.concat(slabs.map((box) => cutBox(tensor, box)));
      expect(joined.equals(Buffer.from(tensor.bytes))).toBe(true);
      const axis = Math.max(
        0,
        shape.findIndex((extent) => extent !== 1),
      );
      for (const { sizes } of slabs)
        expect(sizes.length === 0 || sizes[axis] === 1 || 2 * volume(sizes) <= maxBytes).toBe(true);
    }),
  );
});

test("a box that is large enough is cut into boxes that are disjoint and cover it; a small one stays", () => {
  fc.assert(
    fc.property(shapes, limits, (sizes, maxBytes) => {
      const box = { offsets: sizes.map((_, d) => d + 1), sizes };
      const parts = cutLarge(box, 2, maxBytes);
      expect(parts.reduce((sum, part) => sum + volume(part.sizes), 0)).toBe(volume(sizes));
      if (2 * volume(sizes) <= maxBytes) expect(parts).toEqual([box]);
      const starts = new Set(parts.map(({ offsets }) => String(offsets)));
      expect(starts.size).toBe(parts.length);
      for (const { offsets, sizes: extents } of parts) {
        expect(
          offsets.every((offset, d) => offset >= d + 1 && offset + extents[d]! <= d + 1 + sizes[d]!),
        ).toBe(true);
      }
    }),
  );
});

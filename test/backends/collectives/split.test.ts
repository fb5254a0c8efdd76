import { expect, test } from "bun:test";
import fc from "fast-check";
import { SPLIT_FIELDS, splitPlace } from "../../../backends/collectives/split.ts";

test("subgroups partition the ranks, agree on their members, and lie one after the other", () => {
  const row = fc.tuple(fc.integer({ min: -3, max: 3 }), fc.integer({ min: -2, max: 2 }));
  fc.assert(
    fc.property(fc.array(row, { minLength: 1, maxLength: 12 }), (rows) => {
      const table = Float64Array.from(rows.flatMap(([color, key]) => [color, key, 0]));
      expect(table.length).toBe(SPLIT_FIELDS * rows.length);
      const places = rows.map((_, rank) => splitPlace(table, rank));
      places.forEach(({ members, rank }, parentRank) => {
        expect(members[rank]).toBe(parentRank);
        for (const member of members) expect(places[member]!.members).toEqual(members);
        const keys = members.map((member) => rows[member]![1]);
        expect(keys).toEqual(keys.toSorted((a, b) => a - b));
      });
      const starts = places.map(({ sizesBefore }) => sizesBefore.reduce((sum, size) => sum + size, 0));
      const taken = places.map(({ rank }, parentRank) => starts[parentRank]! + rank).sort((a, b) => a - b);
      expect(taken).toEqual(rows.map((_, index) => index));
    }),
  );
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { localCollectives } from "../../../backends/collectives/mod.ts";
import { reduceLayout } from "../../../core/engine/reduce-layout.ts";
import { UnitShards } from "../../../core/engine/unit-shards.ts";
import { constant, Parameter } from "../../../core/nn/mod.ts";
import { numelOf } from "../../../core/tensor/shape.ts";
import { dimShard } from "../../../plugins/fsdp2/dim-shard.ts";

describe("reduceLayout", () => {
  const cases = fc.record({
    world: fc.integer({ min: 1, max: 5 }),
    shapes: fc.array(
      fc.record({
        shape: fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 3 }),
        dim: fc.nat(2),
        takesPart: fc.boolean(),
      }),
      { minLength: 1, maxLength: 5 },
    ),
  });

  test("sends every element of a member to the rank that holds it, once, and has no room for anything else", () => {
    fc.assert(
      fc.property(cases, ({ world, shapes }) => {
        const parameters = shapes.map(({ shape }) => new Parameter(shape, constant(0)));
        const dims = new Map(parameters.map((p, i) => [p, Math.min(shapes[i]!.dim, p.shape.length - 1)]));
        const members = [...shapes.keys()].filter((i) => shapes[i]!.takesPart);
        for (const group of localCollectives(world)) {
          const layoutFor = (parameter: Parameter) => dimShard(dims.get(parameter)!);
          const shards = new UnitShards("unit", parameters, { layout: dimShard(0), layoutFor, group });
          const { numel, boxes, offsets, padded } = reduceLayout(shards, members);
          const input = new Map<number, string>();
          for (const [m, list] of boxes.entries()) {
            for (const { sizes, sourceOffset, sourceStrides, targetOffset, targetStrides } of list) {
              for (let i = 0; i < numelOf(sizes); i++) {
                let [rest, source, target] = [i, sourceOffset, targetOffset];
                for (let d = sizes.length - 1; d >= 0; d--) {
                  source += (rest % sizes[d]!) * sourceStrides[d]!;
                  target += (rest % sizes[d]!) * targetStrides[d]!;
                  rest = Math.floor(rest / sizes[d]!);
                }
                expect(input.has(target)).toBe(false);
                input.set(target, `${members[m]} ${source}`);
              }
            }
          }
          const total = members.reduce((sum, member) => sum + parameters[member]!.numel, 0);
          expect(new Set(input.values()).size).toBe(total);
          expect(padded).toBe(total < world * numel);
          for (const [m, member] of members.entries()) {
            const held = shards
              .piecesOf(group.rank)
              [member]!.reduce((sum, { sizes }) => sum + numelOf(sizes), 0);
            for (let i = 0; i < held; i++) {
              expect(input.get(group.rank * numel + offsets[m]! + i)?.startsWith(`${member} `)).toBe(true);
            }
          }
        }
      }),
      { numRuns: 60 },
    );
  });
});

/** Mixed precision (TestFullyShardMixedPrecisionTraining): what it computes, communicates and keeps, and in what. */
import { describe, expect, test } from "bun:test";
import { expectClose, expectTrainedAlike } from "./compare.ts";
import { type AccumulationSpec, accumulate } from "./programs/accumulation.ts";
import { trainByHand } from "./programs/by-hand.ts";
import { events } from "./programs/events.ts";
import { train } from "./programs/training.ts";
import type { Subject } from "./subject.ts";

/** Registers the tests. */
export function precision(subject: Subject): void {
  const { worlds, precisions, exact, timeout } = subject;
  if (precisions.length === 0) return;
  describe("mixed precision", () => {
    for (const worldSize of worlds) {
      test(
        `is what 16-bit copies of float32 weights give, reduced in float32, on ${worldSize} ranks`,
        async () => {
          const model = { kind: "pair", extents: [7, 15, 3] } as const;
          const check = async (dtype: (typeof precisions)[number]): Promise<void> => {
            const policy = { paramDtype: dtype, reduceDtype: "float32", outputDtype: "float32" } as const;
            const sharding = { groups: "one", precision: policy } as const;
            const [[reference], results] = await Promise.all([
              subject.run(worldSize, trainByHand, { model, dtype, steps: 4 }),
              subject.run(worldSize, train, { model, sharding, steps: 4 }),
            ]);
            expectTrainedAlike(results, reference!, JSON.stringify({ worldSize, dtype }), exact);
            for (const { dtypes } of results) expect(dtypes).toEqual(["float32"]);
          };
          await Promise.all(precisions.map(check));
        },
        timeout,
      );

      if (worldSize === 1) continue;
      test(
        `gathers in the one type and reduces in the other on ${worldSize} ranks`,
        async () => {
          const check = async (paramDtype: (typeof precisions)[number]): Promise<void> => {
            for (const reduceDtype of ["float32", undefined] as const) {
              const policy = { paramDtype, reduceDtype, outputDtype: "float32" } as const;
              const spec = { sharding: { precision: policy }, layers: 2 };
              for (const [step] of await subject.run(worldSize, events, spec)) {
                const dtypes = step!.flatMap((pass) =>
                  pass.collectives.map(({ kind, dtype }) => `${kind} ${dtype}`),
                );
                expect(new Set(dtypes)).toEqual(
                  new Set([`allGather ${paramDtype}`, `reduceScatter ${reduceDtype ?? paramDtype}`]),
                );
              }
            }
          };
          await Promise.all(precisions.map(check));
        },
        timeout,
      );

      test(
        `adds gradients of microbatches up in the type of the reduction on ${worldSize} ranks`,
        async () => {
          const check = async (paramDtype: (typeof precisions)[number]): Promise<void> => {
            const policy = { paramDtype, reduceDtype: "float32", outputDtype: "float32" } as const;
            const of = (deferred: NonNullable<AccumulationSpec["deferred"]>) =>
              subject.run(worldSize, accumulate, {
                layers: 2,
                microbatches: 5,
                sharding: { precision: policy },
                deferred,
              });
            const [each, last] = await Promise.all([of("none"), of("all")]);
            for (const [r, { gradients }] of last.entries()) {
              for (const [i, gradient] of gradients.entries()) {
                expectClose(gradient, each[r]!.gradients[i]!, `${paramDtype}, parameter ${i}`, 1e-6);
              }
            }
          };
          await Promise.all(precisions.map(check));
        },
        timeout,
      );
    }
  });
}

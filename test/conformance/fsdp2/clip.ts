/** One norm over all parameters on all ranks (TestClipGradNormWorldSize2, WorldSize4). */
import { describe, test } from "bun:test";
import { expectClose } from "./compare.ts";
import { clip } from "./programs/clip.ts";
import type { ModelSpec, ShardSpec } from "./programs/models.ts";
import type { Subject } from "./subject.ts";

const MODEL: ModelSpec = { kind: "stack" };
/** Below the norm of the gradients, and above it. */
const BOUNDS = [0.01, 1e4];

/** What clipping does, in one line each. */
function clipped(
  gradients: readonly (readonly number[])[],
  normType: number,
  maxNorm: number,
  subset: boolean,
) {
  const takesPart = (i: number): boolean => !subset || i % 2 === 0;
  const sizes = gradients.filter((_, i) => takesPart(i)).flatMap((values) => values.map(Math.abs));
  const norm =
    normType === Number.POSITIVE_INFINITY
      ? Math.max(...sizes)
      : sizes.reduce((sum, size) => sum + size ** normType, 0) ** (1 / normType);
  const factor = Math.min(1, maxNorm / (norm + 1e-6));
  return {
    norm,
    gradients: gradients.map((values, i) => values.map((v) => (takesPart(i) ? v * factor : v))),
  };
}

/** Registers the tests. */
export function clipping(subject: Subject): void {
  const { worlds, thorough, timeout } = subject;
  const orders = thorough ? [1, 2, 3, Number.POSITIVE_INFINITY] : [2];

  describe("clipping", () => {
    for (const worldSize of worlds) {
      test(
        `finds the norm of the averaged gradients, of all or of some, and scales by it, on ${worldSize} ranks`,
        async () => {
          const grid: readonly ShardSpec[] = worldSize === 4 ? [{ mesh: [2, 2] }] : [];
          const whole = { model: MODEL, normType: 2, maxNorm: 1, subset: false };
          const replicas = subject.run(worldSize, clip, whole);
          const check = async (sharding: ShardSpec, normType: number, maxNorm: number): Promise<void> => {
            const subset = normType === 2;
            const spec = { model: MODEL, sharding, normType, maxNorm, subset };
            const [[replica], results] = await Promise.all([replicas, subject.run(worldSize, clip, spec)]);
            const expected = clipped(replica!.gradients, normType, maxNorm, subset);
            for (const { norm, gradients } of results) {
              const what = JSON.stringify({ ...spec, normType: String(normType) });
              expectClose([norm!], [expected.norm], what, 1e-5);
              for (const [i, gradient] of gradients.entries()) {
                expectClose(gradient, expected.gradients[i]!, `${what}, parameter ${i}`, 1e-6);
              }
            }
          };
          const all = [{}, ...grid].flatMap((sharding) =>
            orders.flatMap((normType) => BOUNDS.map((maxNorm) => check(sharding, normType, maxNorm))),
          );
          await Promise.all(all);
        },
        timeout,
      );
    }
  });
}

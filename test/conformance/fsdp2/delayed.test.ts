import { expect, test } from "bun:test";
import { localCollectives } from "../../../backends/collectives/local/group.ts";
import { delayed } from "./delayed.ts";

const late = { seed: 1, calls: ["allGather", "reduceScatter", "allReduce"] } as const;

test("a late gather shows who does not wait for it, and who reuses its input before", async () => {
  const found = await Promise.all(
    localCollectives(2).map(async (inner) => {
      const group = delayed(inner, late);
      const output = new Float32Array(2);
      const input = Float32Array.of(inner.rank + 1);
      const work = group.allGather(output, input);
      const early = output.slice();
      if (inner.rank === 1) input[0] = 7;
      await work.wait();
      return { early, output };
    }),
  );
  for (const { early, output } of found) {
    expect(Array.from(early)).toEqual([Number.NaN, Number.NaN]);
    expect(Array.from(output)).toEqual([1, 7]);
  }
});

test("late calls give what punctual ones give, in the order in which they were made", async () => {
  await Promise.all(
    localCollectives(3).map(async (inner) => {
      const group = delayed(inner, late);
      const ended: number[] = [];
      const sums = Array.from({ length: 6 }, (_, i) => Float64Array.of(i));
      await Promise.all(
        sums.map(async (sum, i) => {
          await group.allReduce(sum, "sum", "float64").wait();
          ended.push(i);
        }),
      );
      expect(ended).toEqual([0, 1, 2, 3, 4, 5]);
      expect(sums.map((sum) => sum[0])).toEqual([0, 3, 6, 9, 12, 15]);
      const whole = Float32Array.of(1, 2, 3);
      const own = whole.subarray(inner.rank, inner.rank + 1);
      await group.allGather(whole, own).wait();
      expect(Array.from(whole)).toEqual([1, 2, 3]);
    }),
  );
});

import { expect, test } from "bun:test";
import { exclusively } from "../../../backends/webgpu/adapter-lock.ts";

test("calls run one after the other, and a failed one lets the next in", async () => {
  const running: number[] = [];
  let most = 0;
  const call = (id: number): Promise<number> =>
    exclusively(async () => {
      running.push(id);
      most = Math.max(most, running.length);
      await Promise.resolve();
      running.splice(running.indexOf(id), 1);
      if (id === 1) throw new RangeError("on purpose");
      return id;
    });
  const results = await Promise.allSettled([0, 1, 2, 3].map(call));
  expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "fulfilled"]);
  expect(most).toBe(1);
});

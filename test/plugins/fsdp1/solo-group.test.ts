import { expect, test } from "bun:test";
import { soloGroup } from "../../../plugins/fsdp1/solo-group.ts";
import { runRanks } from "../../support/ranks.ts";

test("a group of one rank copies, waits for nobody, and fails its world when it is told to", async () => {
  const reasons = await runRanks(2, async ({ collective, rank, calls }) => {
    const solo = soloGroup(collective);
    expect([solo.rank, solo.size]).toEqual([0, 1]);
    // Rank 1 takes no part.
    if (rank === 0) {
      const [given, gathered, reduced] = [Float32Array.of(1, 2), new Float32Array(2), new Float32Array(2)];
      await solo.allGather(gathered, given).wait();
      await solo.reduceScatter(reduced, given, "avg", "float32").wait();
      await solo.allReduce(given, "avg", "float32").wait();
      await solo.broadcast(given, 0).wait();
      await solo.barrier().wait();
      expect([gathered, reduced, given]).toEqual([given, given, Float32Array.of(1, 2)]);
      const shared = await solo.share(given, Promise.resolve());
      expect(shared.inputs).toEqual([given]);
      shared.release();
      await shared.released;
      const window = solo.window(64);
      expect(window.bytes.byteLength).toBe(64);
      window.release();
      expect(await solo.split(3, 0)).toBe(solo);
      await solo.close();
      expect(calls).toEqual([]);
      solo.abort("told to");
    }
    return await collective
      .barrier()
      .wait()
      .then(
        () => "went on",
        (error: Error) => error.message,
      );
  });
  for (const reason of reasons) expect(reason).toContain("told to");
});

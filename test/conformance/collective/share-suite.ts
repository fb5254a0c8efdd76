/**
 * The part of the suite about shared inputs: how long they last, in order and when things go wrong.
 *
 * @module
 */
import { describe, expect, test } from "bun:test";
import type { Transport } from "../../../core/contracts/transport.ts";
import type { Outcome } from "./outcome.ts";

const PROGRAMS: string = new URL("./share-programs.ts", import.meta.url).href;

/** Registers the tests for a transport over `worlds`; `timeout` is for a test, in milliseconds. */
export function shareConformance(transport: Transport, worlds: readonly number[], timeout: number): void {
  const run = async <T>(worldSize: number, program: string, args: unknown = {}): Promise<readonly T[]> => {
    const job = transport.launch({ module: PROGRAMS, export: program, args }, { worldSize });
    return (await job.results) as readonly T[];
  };

  describe.each(worlds.map((world) => [world] as const))(`${transport.name}, shares of %i ranks`, (world) => {
    test(
      "more shares may be held than operations are under way; released in any order, they end in that of their calls",
      async () => {
        const count = world > 8 ? 3 : 40;
        const expected = [0, ...Array.from({ length: count }, (_, i) => i)];
        for (const found of await run<readonly number[]>(world, "manyShares", { count })) {
          expect(found).toEqual(expected);
        }
      },
      timeout,
    );

    if (world === 1) return;
    test(
      "a rank that fails ends the shares that others hold, in its name",
      async () => {
        const seen: { seen: Outcome; later: Outcome; sizes: readonly number[] }[] = [];
        const job = transport.launch(
          { module: PROGRAMS, export: "failingSharer", args: {} },
          { worldSize: world, onMessage: (_, message) => seen.push(message as (typeof seen)[number]) },
        );
        await expect(job.results).rejects.toMatchObject({ name: "ShapeError" });
        expect(seen).toHaveLength(world - 1);
        for (const { seen: first, later, sizes } of seen) {
          for (const { name, rank } of [first, later]) expect([name, rank]).toEqual(["CollectiveError", 1]);
          expect(sizes).toEqual(new Array(world).fill(8));
        }
      },
      timeout,
    );

    test(
      "a share that a rank cannot fill rejects on every rank, with the reason",
      async () => {
        const outcomes = await run<readonly Outcome[]>(world, "unfilledShare");
        for (const [rank, [first, later]] of outcomes.entries()) {
          expect(first!.name).toBe(rank === 1 ? "ShapeError" : "CollectiveError");
          for (const { message } of [first!, later!]) expect(message).toContain("nothing to share");
          if (rank !== 1) expect([first!.rank, later!.rank]).toEqual([1, 1]);
        }
      },
      timeout,
    );

    test(
      "what a rank shared outlives its leaving, which releases what it held",
      async () => {
        const expected = Array.from({ length: world }, (_, rank) => 10 + rank);
        for (const seen of await run<readonly number[]>(world, "closedSharer")) {
          expect(seen).toEqual(expected);
        }
      },
      timeout,
    );
  });
}

import { describe, expect, test } from "bun:test";
import { allGatherBytes, broadcastBytes, onEveryRank, onFirstRank } from "../../checkpoint/agree.ts";
import { CheckpointError, CollectiveError } from "../../core/contracts/errors.ts";
import { runRanks, settleRanks } from "./ranks.ts";

describe("exchange", () => {
  test("bytes of different lengths, none too, arrive in rank order", async () => {
    const gathered = await runRanks(4, (collective) =>
      allGatherBytes(collective, new Uint8Array(collective.rank).fill(collective.rank)),
    );
    for (const all of gathered) expect(all.map((bytes) => [...bytes])).toEqual([[], [1], [2, 2], [3, 3, 3]]);
    const sent = await runRanks(3, (collective) =>
      broadcastBytes(collective, Uint8Array.of(collective.rank, 9)),
    );
    for (const bytes of sent) expect([...bytes]).toEqual([0, 9]);
    const empty = await runRanks(2, (collective) => allGatherBytes(collective, new Uint8Array(0)));
    for (const all of empty) expect(all.map((bytes) => bytes.length)).toEqual([0, 0]);
  });
});

describe("agreement", () => {
  test("each rank gets its own result when all succeed", async () => {
    expect(
      await runRanks(3, (collective) => onEveryRank(collective, "x", async () => collective.rank)),
    ).toEqual([0, 1, 2]);
    expect(
      await runRanks(3, (collective) => onFirstRank(collective, "x", async () => `of ${collective.rank}`)),
    ).toEqual(["of 0", "of 0", "of 0"]);
  });

  test("all ranks throw one message that names every rank that failed, and those keep their cause", async () => {
    const fault = new TypeError("bad");
    const results = await settleRanks(4, (collective) =>
      onEveryRank(collective, "step", async () => {
        if (collective.rank % 2 === 1) throw fault;
      }),
    );
    for (const [rank, result] of results.entries()) {
      expect(result).toMatchObject({
        status: "rejected",
        reason: { message: "step: rank 1: bad; rank 3: bad" },
      });
      if (result.status === "rejected") expect(result.reason.cause).toBe(rank % 2 === 1 ? fault : undefined);
    }
  });

  test("a failure of the first rank reaches all, one without a message too", async () => {
    for (const [error, message] of [
      [new CheckpointError("full"), "w: full"],
      [new Error(""), "w: it failed"],
    ] as const) {
      const results = await settleRanks(3, (collective) =>
        onFirstRank(collective, "w", () => Promise.reject(error)),
      );
      for (const result of results) expect(result).toMatchObject({ status: "rejected", reason: { message } });
    }
  });

  test("a group that is aborted meanwhile rejects instead of waiting", async () => {
    const results = await settleRanks(2, async (collective) => {
      if (collective.rank === 1) return collective.abort("rank 1 vanished");
      await onEveryRank(collective, "x", async () => undefined);
    });
    expect(results[0]).toMatchObject({
      status: "rejected",
      reason: { message: "collective aborted by rank 1: rank 1 vanished" },
    });
    if (results[0]!.status === "rejected") expect(results[0]!.reason).toBeInstanceOf(CollectiveError);
  });
});

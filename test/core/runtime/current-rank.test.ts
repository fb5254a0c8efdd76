import { expect, test } from "bun:test";
import { StateError } from "../../../core/contracts/errors.ts";
import { asRank, currentRank, isLaunched } from "../../../core/runtime/current-rank.ts";
import type { Rank } from "../../../core/runtime/launch.ts";

const rankOf = (rank: number) => ({ rank }) as Rank;

test("there is no rank outside of a launch", () => {
  expect(isLaunched()).toBe(false);
  expect(() => currentRank()).toThrow(StateError);
});

test("ranks of one event loop each find themselves, across awaits", async () => {
  const seen = await Promise.all(
    [0, 1, 2].map((rank) =>
      asRank(rankOf(rank), async () => {
        await new Promise((resolve) => setTimeout(resolve, 3 - rank));
        return currentRank().rank;
      }),
    ),
  );
  expect(seen).toEqual([0, 1, 2]);
  expect(isLaunched()).toBe(false);
});

test("code that runs beside the only rank of a thread finds it; beside several it is told what to do", async () => {
  const [begin, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const first = asRank(rankOf(4), () => end.promise);
  expect(currentRank().rank).toBe(4);
  const second = asRank(rankOf(5), () => begin.promise);
  expect(() => currentRank()).toThrow("there are 2 ranks in this thread");
  begin.resolve();
  end.resolve();
  await Promise.all([first, second]);
});

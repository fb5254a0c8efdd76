import { afterAll, expect, test } from "bun:test";
import { nativeCheckpointer } from "../../../../checkpoint/checkpointer.ts";
import { readExtent } from "../../../../checkpoint/stores/http/extents.ts";
import { httpStore } from "../../../../checkpoint/stores/http/store.ts";
import { seeded } from "../../../support/random.ts";
import { runRanks } from "../../ranks.ts";
import { makeFolder, startService } from "../../server/service.ts";
import { cutBox, dimZero, emptyState, patternTensor, shardedState } from "../../states.ts";

const { folder, remove } = makeFolder();
const service = await startService({ directory: folder });
afterAll(async () => {
  await service.close();
  remove();
});

const TENSORS = Array.from({ length: 9 }, (_, i) => patternTensor(`model.w${i}`, "float32", [700 + i, 501]));

await runRanks(2, (collective) =>
  nativeCheckpointer(httpStore(`${service.url}/runs/a`), { now: () => 0 }).save(
    shardedState(TENSORS, dimZero(2), collective.rank),
    1,
    collective,
  ),
);

/** Loads over some ranks by `fetch`. @returns how many data requests were made. */
async function load(ranks: number, fetcher: typeof fetch): Promise<number> {
  let requests = 0;
  const store = httpStore(`${service.url}/runs/a`, {
    random: () => -0.49,
    fetch: (url, init) => {
      if (init.method === "GET" && url.includes("safetensors")) requests++;
      return fetcher(url, init);
    },
  });
  const right = await runRanks(ranks, async (collective) => {
    const { state, filled } = emptyState(TENSORS, dimZero(ranks), collective.rank);
    await nativeCheckpointer(store).load(state, "latest", collective);
    return filled.every(({ tensor, box, bytes }) => Buffer.compare(cutBox(tensor, box), bytes) === 0);
  });
  expect(right).toEqual(right.map(() => true));
  return requests;
}

test("a load asks once for what lies together in a file, whatever tensors it belongs to", async () => {
  // Six MiB in each of two files.
  expect(await load(1, fetch)).toBeLessThan(8);
  expect(await load(2, fetch)).toBeLessThan(8);
});

test("answers that are cut anywhere are asked for again, from there on", async () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  console.log(`cut answers: seed ${seed}`);
  const choices = seeded(seed);
  let cuts = 0;
  const cutting = (async (url: string, init: RequestInit): Promise<Response> => {
    const response = await fetch(url, init);
    if (!url.includes("safetensors") || response.status !== 206 || !choices.chance(0.4)) return response;
    cuts++;
    let left = choices.below(4 * 2 ** 20);
    const breaks = choices.chance(0.5);
    const body = response.body!.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, controller): void {
          if (left > 0) controller.enqueue(chunk.subarray(0, left));
          left -= chunk.length;
          if (left > 0) return;
          if (breaks) controller.error(new TypeError("cut"));
          else controller.terminate();
        },
      }),
    );
    return new Response(body, { status: 206, headers: response.headers });
  }) as typeof fetch;
  for (let round = 0; round < 6; round++) await load(1 + (round % 3), cutting);
  expect(cuts).toBeGreaterThan(0);
}, 30_000);

test("an extent that fails fails every call after it, and never gives bytes of another place", async () => {
  const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
  let closed = 0;
  const extent = readExtent(0, 100, async () => {
    let at = 0;
    return {
      async read() {
        if (at >= 60) throw new TypeError("cut");
        at += 30;
        return { value: bytes.subarray(at - 30, at), done: false };
      },
      cancel: async () => void closed++,
    };
  });
  expect([extent.continues(0, 40), extent.continues(10, 40), extent.continues(0, 101)]).toEqual([
    true,
    false,
    false,
  ]);
  const targets = [40, 40, 20].map((length) => new Uint8Array(length));
  const outcomes = await Promise.allSettled(targets.map((target) => extent.take(target)));
  expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "rejected"]);
  expect(targets[0]).toEqual(bytes.subarray(0, 40));
  expect(targets[2]).toEqual(new Uint8Array(20));
  expect([extent.over, extent.continues(100, 100), closed]).toEqual([true, false, 1]);
});

/**
 * Many ranks that save to one service at once: each uploads its shard and its manifest through the store's own client, and
 * the last one commits. Every checkpoint is verified by the service and deleted again.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import { httpStore } from "../../checkpoint/stores/http/store.ts";
import { makeParts } from "../checkpoint/server/parts.ts";

/** How hard it is. */
export interface StormOptions {
  readonly url: string;
  readonly ranks: number;
  readonly shardBytes: number;
  /** Saves go on to be begun for so long. */
  readonly seconds: number;
}

/** What came of it. */
export interface StormResult {
  readonly saves: number;
  readonly bytes: number;
  /** From the first byte of each save to its commit, in all. */
  readonly uploadSeconds: number;
  /** How often the service answered each status. */
  readonly statuses: Readonly<Record<number, number>>;
  /** Faults that the service found in committed checkpoints. */
  readonly faults: readonly unknown[];
}

const RUN = "storm";
const ROW_BYTES = 32;
const MSGPACK = { "content-type": "application/msgpack" };

/** Runs saves one after another, all ranks of each at once. @throws what a rank met that was no 429. */
export async function uploadStorm({ url, ranks, shardBytes, seconds }: StormOptions): Promise<StormResult> {
  const statuses: Record<number, number> = {};
  const counting = async (to: string, init: RequestInit): Promise<Response> => {
    const response = await fetch(to, init);
    statuses[response.status] = (statuses[response.status] ?? 0) + 1;
    return response;
  };
  const store = httpStore(`${url}/runs/${RUN}`, { fetch: counting });
  const runPath = `${url}/v1/runs/${RUN}`;
  const faults: unknown[] = [];
  const begin = performance.now();
  let saves = 0;
  let uploading = 0;
  for (; (performance.now() - begin) / 1000 < seconds || saves === 0; saves++) {
    const step = saves + 1;
    const name = `step-${String(step).padStart(8, "0")}`;
    const begun = await counting(`${runPath}/saves`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ step, worldSize: ranks, commit: "auto" }),
    });
    const { id } = (await begun.json()) as { readonly id: string };
    // Other bytes in every save, or the service would have them already.
    const parts = makeParts(step, ranks, { rows: Math.floor(shardBytes / ROW_BYTES), shift: step });
    const ready = performance.now();
    await Promise.all(
      parts.map(async ({ rank, file, data, manifest }) => {
        const transaction = await store.join(name, id);
        const writer = await transaction.create(file, data.length);
        await writer.write(data);
        await writer.close();
        const path = `${runPath}/saves/${id}/ranks/${rank}/manifest`;
        const answer = await counting(path, { method: "PUT", headers: MSGPACK, body: manifest });
        if (answer.status !== 201) throw new Error(`rank ${rank}: ${await answer.text()}`);
      }),
    );
    uploading += performance.now() - ready;
    faults.push(...(await verify(`${runPath}/checkpoints/${name}`, counting)));
    await store.delete(name);
  }
  return { saves, bytes: saves * ranks * shardBytes, uploadSeconds: uploading / 1000, statuses, faults };
}

/** Has the service read every byte of a checkpoint. */
async function verify(
  checkpoint: string,
  request: (url: string, init: RequestInit) => Promise<Response>,
): Promise<readonly unknown[]> {
  const started = await request(`${checkpoint}/verify`, { method: "POST" });
  const { id } = (await started.json()) as { readonly id: string };
  for (;;) {
    const answer = await request(`${checkpoint}/verify/${id}`, {});
    const { state, faults } = (await answer.json()) as { state: string; faults?: readonly unknown[] };
    if (state === "done") return faults ?? [];
    if (state !== "running") return [{ checkpoint, state }];
    await sleep(50);
  }
}

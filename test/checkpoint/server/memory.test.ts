import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import type { ShardedState } from "../../../core/contracts/checkpointer.ts";
import { runRanks } from "../ranks.ts";
import { makeFolder, residentBytes, spawnService } from "./service.ts";

const MIB = 1024 * 1024;
/** Rows of 1 MiB: one file of 1 GiB. */
const ROWS = 1024;

const { folder, remove } = makeFolder();
afterAll(remove);

/** A tensor of `ROWS` MiB in one piece of zeros but for its ends. */
function largeState(): ShardedState {
  const data = new Float32Array((ROWS * MIB) / 4);
  data[0] = 1;
  data[data.length - 1] = 2;
  const shape = [ROWS, MIB / 4];
  const piece = { offsets: [0, 0], sizes: shape, read: async () => data, write: () => undefined };
  return {
    tensors: [{ name: "model.w", dtype: "float32", shape, pieces: [piece] }],
    values: {},
    rankValues: {},
  };
}

/** Bytes of a stream, and its last four. */
async function drain(url: string): Promise<{ readonly length: number; readonly last: readonly number[] }> {
  const response = await fetch(url);
  let length = 0;
  let last: readonly number[] = [];
  for await (const chunk of response.body!) {
    length += chunk.length;
    last = [...last, ...chunk.subarray(Math.max(0, chunk.length - 4))].slice(-4);
  }
  return { length, last };
}

describe.each(["bun", "deno"] as const)("serve under %s", (runtime) => {
  test.if(existsSync("/proc/self/status"))(
    "takes and gives a file of 1 GiB within 200 MiB of memory, exports included",
    async () => {
      const service = await spawnService(runtime, join(folder, runtime));
      const { pid } = service.child!;
      const before = await residentBytes(pid);
      let peak = before;
      const watch = setInterval(async () => {
        peak = Math.max(peak, await residentBytes(pid).catch(() => 0));
      }, 20);
      try {
        const checkpointer = nativeCheckpointer(httpStore(`${service.url}/runs/a`));
        await runRanks(1, (collective) => checkpointer.save(largeState(), 1, collective));
        const path = `${service.url}/v1/runs/a/checkpoints/step-00000001`;
        const float2 = [0, 0, 0, 64];
        const file = await drain(`${path}/files/rank-00000.safetensors`);
        expect([file.length > ROWS * MIB, file.last]).toEqual([true, float2]);
        const exported = await drain(`${path}/export.safetensors`);
        expect([exported.length > ROWS * MIB, exported.last]).toEqual([true, float2]);
        expect((peak - before) / MIB).toBeLessThan(200);
      } finally {
        clearInterval(watch);
        await service.close();
      }
    },
    120_000,
  );
});

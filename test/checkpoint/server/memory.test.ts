import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import type { ShardedState } from "../../../core/contracts/checkpointer.ts";
import { runRanks } from "../ranks.ts";
import { makeFolder, residentBytes, spawnService } from "./service.ts";

const MIB = 1024 * 1024;
/** Rows of 1 MiB: one file of 64 MiB, which warms up, and one of 1 GiB. */
const [SMALL, LARGE] = [64, 1024];

const { folder, remove } = makeFolder();
afterAll(remove);

/** A tensor of so many MiB in one piece of zeros but for its ends. */
function stateOf(rows: number): ShardedState {
  const data = new Float32Array((rows * MIB) / 4);
  data[0] = 1;
  data[data.length - 1] = 2;
  const shape = [rows, MIB / 4];
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
      let peak = 0;
      const watch = setInterval(async () => {
        peak = Math.max(peak, await residentBytes(pid).catch(() => 0));
      }, 20);
      try {
        const checkpointer = nativeCheckpointer(httpStore(`${service.url}/runs/a`));
        const there = `${service.url}/v1/runs/a/checkpoints`;
        const upAndDown = async (rows: number): Promise<void> => {
          await runRanks(1, (collective) => checkpointer.save(stateOf(rows), rows, collective));
          const path = `${there}/step-${String(rows).padStart(8, "0")}`;
          for (const file of ["files/rank-00000.safetensors", "export.safetensors"]) {
            const { length, last } = await drain(`${path}/${file}`);
            expect([length > rows * MIB, last]).toEqual([true, [0, 0, 0, 64]]);
          }
        };
        await upAndDown(SMALL);
        const before = peak;
        await upAndDown(LARGE);
        expect((peak - before) / MIB).toBeLessThan(200);
      } finally {
        clearInterval(watch);
        await service.close();
      }
    },
    120_000,
  );
});

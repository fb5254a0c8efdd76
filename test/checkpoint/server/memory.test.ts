import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import type { ShardedState } from "../../../core/contracts/checkpointer.ts";
import { runRanks } from "../ranks.ts";
import { makeFolder, residentBytes, spawnService } from "./service.ts";

const MIB = 1024 * 1024;
/** Tensors of 64 MiB: one file of one of them, which warms up, and one of 2 GiB. */
const [SMALL, LARGE] = [1, 32];
const TENSOR_BYTES = 64 * MIB;

const { folder, remove } = makeFolder();
afterAll(remove);

/** So many tensors, each of the same zeros but for its ends. */
function stateOf(tensors: number): ShardedState {
  const data = new Float32Array(TENSOR_BYTES / 4);
  data[0] = 1;
  data[data.length - 1] = 2;
  const shape = [TENSOR_BYTES / MIB, MIB / 4];
  const piece = { offsets: [0, 0], sizes: shape, read: async () => data, write: () => undefined };
  const names = Array.from({ length: tensors }, (_, i) => `model.w${i}`);
  return {
    tensors: names.map((name) => ({ name, dtype: "float32", shape, pieces: [piece] })),
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
    "takes and gives a file of 2 GiB within 200 MiB of memory, exports included",
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
        const upAndDown = async (tensors: number): Promise<void> => {
          await runRanks(1, (collective) => checkpointer.save(stateOf(tensors), tensors, collective));
          const path = `${there}/step-${String(tensors).padStart(8, "0")}`;
          for (const file of ["files/rank-00000.safetensors", "export.safetensors"]) {
            const { length, last } = await drain(`${path}/${file}`);
            expect([length > tensors * TENSOR_BYTES, last]).toEqual([true, [0, 0, 0, 64]]);
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

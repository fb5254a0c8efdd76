import { describe, expect, test } from "bun:test";
import type { Backend } from "../../../core/contracts/backend.ts";
import { DeviceError } from "../../../core/contracts/errors.ts";
import { allReduce } from "../../../core/engine/all-reduce.ts";
import { Device } from "../../../core/tensor/device.ts";
import { inputOf, reduced } from "../../conformance/collective/oracle.ts";
import { runRanks } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";

describe("allReduce", () => {
  for (const far of [false, true]) {
    test(`gives every rank the oracle's bits in ${far ? "memory that the host does not see" : "host memory"}`, async () => {
      for (const worldSize of [1, 2, 3]) {
        for (const dtype of ["float32", "float16", "bfloat16"] as const) {
          for (const op of ["sum", "avg", "max"] as const) {
            for (const length of [0, 7]) {
              const inputs = Array.from({ length: worldSize }, (_, r) => inputOf(dtype, length, 3, r));
              await runRanks(worldSize, async ({ rank, device: { backend }, collective }) => {
                const device = new Device(far ? remote(backend) : backend);
                using tensor = device.allocate([length], dtype);
                device.backend.write(tensor.span, inputs[rank]!);
                await allReduce(collective, tensor, op).wait();
                expect(await tensor.data()).toEqual(reduced(inputs, op, dtype));
              });
            }
          }
        }
      }
    });
  }

  test("that cannot read its tensor rejects on every rank, and gives its window back", async () => {
    await runRanks(2, async ({ rank, device: { backend }, collective }) => {
      const lost: Backend["readInto"] = async () => {
        throw new DeviceError("the device was lost");
      };
      const device = new Device(remote(backend, rank === 1 ? lost : undefined));
      let windows = 0;
      const watched = {
        ...collective,
        window: (length: number) => {
          const inner = collective.window(length);
          windows++;
          const release = (): void => {
            windows--;
            inner.release();
          };
          return { ...inner, release };
        },
      };
      using tensor = device.allocate([3], "float32");
      const error = await allReduce(watched, tensor, "sum")
        .wait()
        .catch((reason: unknown) => reason);
      expect(String(error)).toContain("the device was lost");
      expect(windows).toBe(0);
    });
  });
});

import { expect, test } from "bun:test";
import { uploadStorm } from "../../support/upload-storm.ts";
import { makeFolder, spawnService } from "../server/service.ts";

test("64 ranks that upload at once meet no refusal but 429, and every commit verifies", async () => {
  const { folder, remove } = makeFolder();
  const service = await spawnService("bun", folder);
  try {
    const storm = await uploadStorm({ url: service.url, ranks: 64, shardBytes: 2 ** 20, seconds: 5 });
    const refused = Object.keys(storm.statuses).filter((status) => Number(status) >= 300 && status !== "429");
    expect({ refused, faults: storm.faults }).toEqual({ refused: [], faults: [] });
    expect(storm.statuses[201]).toBeGreaterThanOrEqual(storm.saves * 64 * 3);
  } finally {
    await service.close();
    remove();
  }
}, 120_000);

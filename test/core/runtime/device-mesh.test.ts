import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { deviceMeshFromGroups, initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { runRanks } from "../../support/ranks.ts";

describe("initDeviceMesh", () => {
  test("arranges ranks row-major, and finds the line through each along every dim, by number and name", async () => {
    const places = await runRanks(6, async ({ collective }) => {
      const mesh = await initDeviceMesh(collective, [2, 3]);
      expect(mesh.dimNames).toEqual(["replicate", "shard"]);
      expect(mesh.group("shard")).toBe(mesh.group(1));
      const lines = await Promise.all(
        [mesh.group(0), mesh.group(1)].map(async (group) => {
          const ranks = new Float64Array(group.size);
          await group.allGather(ranks, Float64Array.of(collective.rank)).wait();
          return Array.from(ranks);
        }),
      );
      return [mesh.coordinates, ...lines];
    });
    expect(places[4]).toEqual([
      [1, 1],
      [1, 4],
      [3, 4, 5],
    ]);
    expect(places[2]).toEqual([
      [0, 2],
      [2, 5],
      [0, 1, 2],
    ]);
  });

  test("refuses shapes and names that do not fit", async () => {
    await runRanks(2, async ({ collective }) => {
      for (const shape of [[], [3], [2, 2], [-1, -2], [0.5, 4]]) {
        await expect(initDeviceMesh(collective, shape)).rejects.toThrow(ConfigError);
      }
      for (const dimNames of [[], ["a", "b"]]) {
        await expect(initDeviceMesh(collective, [2], { dimNames })).rejects.toThrow(/dim names/);
      }
      const mesh = await initDeviceMesh(collective);
      expect(() => mesh.group(1)).toThrow(/no dim 1: it has 1, named "shard"/);
      expect(() => mesh.group("replicate")).toThrow(/no dim "replicate"/);
    });
  });
});

describe("deviceMeshFromGroups", () => {
  test("is the mesh that its groups came from", async () => {
    await runRanks(4, async ({ collective }) => {
      const mesh = await initDeviceMesh(collective, [2, 2]);
      const same = deviceMeshFromGroups([mesh.group(0), mesh.group(1)]);
      expect([same.shape, same.coordinates, same.dimNames]).toEqual([
        mesh.shape,
        mesh.coordinates,
        mesh.dimNames,
      ]);
      expect(same.group("shard")).toBe(mesh.group(1));
    });
    expect(() => deviceMeshFromGroups([])).toThrow(ConfigError);
  });
});

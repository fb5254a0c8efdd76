import { describe, expect, test } from "bun:test";
import { fileURLToPath } from "node:url";
import { allowed, atPoints, formula, measureMemory, memoryTables } from "../../bench/memory.ts";

const PAGE = fileURLToPath(new URL("../../../plugins/fsdp2/memory.md", import.meta.url));
const figures = await measureMemory();

/** What stands between the marks of a name. */
async function section(name: string): Promise<string> {
  const text = await Bun.file(PAGE).text();
  const found = new RegExp(`<!-- ${name} -->\n\n([\\s\\S]*?)\n\n<!-- /${name} -->`).exec(text);
  return found?.[1] ?? "";
}

describe("the memory page", () => {
  test("holds the tables that a run gives", async () => {
    const [categories, points] = memoryTables(figures);
    expect(await section("categories")).toBe(categories!.join("\n"));
    expect(await section("points")).toBe(points!.join("\n"));
  });
});

describe("memory of a step", () => {
  test("peaks at the same byte in the next one", () => {
    for (const { steps } of [...figures.deep, ...figures.pytorch]) expect(steps[1]).toEqual(steps[0]!);
  });

  test("is what the usual formula says", () => {
    for (const measured of figures.deep) {
      const [least, most] = formula(measured);
      const { held } = measured.steps[0]!;
      expect(held, measured.strategy.name).toBeGreaterThanOrEqual(least);
      expect(held, measured.strategy.name).toBeLessThanOrEqual(most);
    }
  });

  test("is at most what PyTorch allows at each point", () => {
    for (const measured of figures.pytorch) {
      const limits = allowed(measured);
      for (const [point, bytes] of atPoints(measured).entries()) {
        expect(bytes, `${measured.strategy.name}, ${point}`).toBeLessThanOrEqual(limits[point]!);
      }
    }
  });

  test("holds on the host all that offload takes from the device", () => {
    const { host, sizes, updated } = figures.deep.find(({ strategy }) => strategy.offload === true)!;
    expect(host).toBe(4 * sizes.part);
    expect(updated).toBe(0);
  });
});

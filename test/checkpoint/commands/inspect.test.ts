import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import process from "node:process";
import { findSource } from "../../../checkpoint/commands/find-source.ts";
import { report } from "../../../checkpoint/commands/inspect.ts";
import { cutOf, shardBar } from "../../../checkpoint/commands/shard-map.ts";
import type { SourceTensor } from "../../../checkpoint/commands/source.ts";
import { shorten, useColour } from "../../../checkpoint/commands/terminal.ts";
import { safetensorsFormat } from "../../../checkpoint/formats/safetensors/format.ts";
import { fixture, inFolder } from "../../support/command.ts";
import { dcpFixture } from "../formats/dcp/fixtures.ts";
import { patternTensor } from "../states.ts";
import { command, registry, saveNative } from "./run.ts";

const plain = (text: string): string => Bun.stripANSI(text);

async function lines(location: string, width: number, colour: boolean): Promise<readonly string[]> {
  const source = await (await findSource(registry, location)).open();
  try {
    return report(source, width, colour);
  } finally {
    await source.close();
  }
}

describe("inspect", () => {
  test("shows tensors, the files that hold them, and values", async () => {
    await inFolder(async (folder) => {
      const run = join(folder, "run");
      const tensors = [
        patternTensor("model.w", "float32", [8, 2]),
        patternTensor("model.scale", "int64", []),
      ];
      await saveNative(run, tensors, { values: { note: "x" } });
      const shown = (await lines(run, 80, false)).map((line) => line.replace(folder, "~"));
      expect(shown).toEqual([
        "~/run/step-00000007",
        "native, step 7, 2 ranks, 2 tensors, 17 elements, 72 B",
        "",
        expect.stringMatching(/^0 {2}rank-00000.safetensors +\d+ B$/),
        expect.stringMatching(/^1 {2}rank-00001.safetensors +\d+ B$/),
        "",
        "model.w      float32  [8, 2]  dim 0  0000000000000000" + "1111111111111111",
        "model.scale  int64    []      whole  00000000000000000000000000000000",
        "",
        "each cell is a stretch of the tensor, in the sign of the file that holds it",
        "",
        'note = "x"',
        "rank 0: rank = 0",
        "rank 1: rank = 1",
      ]);
    });
  });

  test("keeps within a terminal of any width, and says the same with colour", async () => {
    for (const location of [
      dcpFixture("fsdp2-world4-empty-shards"),
      fixture("accelerate-fsdp2/ckpt"),
      fixture("gpt2-tiny/model"),
    ]) {
      for (const width of [20, 40, 60, 80, 132, 250]) {
        const [first, ...rest] = await lines(location, width, false);
        expect(first).toBe(location);
        for (const line of rest) expect([...line].length <= width ? "" : line).toBe("");
        const coloured = await lines(location, width, true);
        expect(coloured.map(plain)).toEqual([first!, ...rest]);
        expect(coloured.join("")).toContain("\x1b[38;5;16;48;5;");
      }
    }
  });

  test("prints all of it for machines", async () => {
    const { code, out, err } = await command("inspect", dcpFixture("fsdp2-world2"), "--json");
    expect({ code, err, lines: out.length }).toEqual({ code: 0, err: [], lines: 1 });
    const json = JSON.parse(out[0]!);
    expect(json).toMatchObject({
      format: "dcp",
      worldSize: 2,
      leftOut: [],
      values: { "train.name": "run-é" },
    });
    const weight = json.tensors.find(({ name }: { name: string }) => name === "model.a.weight");
    expect(weight).toEqual({
      name: "model.a.weight",
      dtype: "float32",
      shape: [7, 5],
      bytes: 140,
      chunks: [
        { offsets: [0, 0], sizes: [4, 5], file: "__0_0.distcp" },
        { offsets: [4, 0], sizes: [3, 5], file: "__1_0.distcp" },
      ],
    });
  });

  test("takes what others note in a weights file as text, however deep it nests", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "w.safetensors");
      const notes = {
        format: "pt",
        made_by: "somebody",
        deep: "[".repeat(5000) + "]".repeat(5000),
        epoch: "3",
      };
      await safetensorsFormat.write(path, [], notes);
      const { code, out } = await command("inspect", path, "--json");
      expect(code).toBe(0);
      expect(JSON.parse(out[0]!).values).toEqual({ made_by: "somebody", deep: notes.deep, epoch: 3 });
    });
  });

  test("lets no name steer the terminal", async () => {
    await inFolder(async (folder) => {
      const names = ["model.\x1b[2J", "model.\u009b31m", "model.\u202eright", "model.\r\nnew"];
      await saveNative(
        folder,
        names.map((name) => patternTensor(name, "int8", [2])),
        { values: { "\x1b]0;title\x07": "\x7f\u2028" } },
      );
      const { code, out } = await command("inspect", folder);
      expect(code).toBe(0);
      expect(out.filter((line) => /[\p{Cc}\p{Cf}\u2028]/u.test(line))).toEqual([]);
      expect(out.join(" ")).toContain("model.�[2J");
    });
  });

  test("colours only a terminal, unless it is told to", async () => {
    expect((await command("inspect", dcpFixture("hsdp-2x2"))).out.join("")).not.toContain("\x1b");
    expect((await command("inspect", dcpFixture("hsdp-2x2"), "--color", "always")).out.join("")).toContain(
      "\x1b",
    );
  });
});

describe("the map", () => {
  const tensor = (shape: readonly number[], chunks: SourceTensor["chunks"]): SourceTensor => ({
    name: "t",
    dtype: "float32",
    shape,
    chunks,
  });

  test("shows who holds which stretch of the axis that is cut", () => {
    const columns = tensor(
      [2, 8],
      [
        { offsets: [0, 0], sizes: [2, 6], file: 0 },
        { offsets: [0, 6], sizes: [2, 2], file: 35 },
      ],
    );
    expect([cutOf(columns), shardBar(columns, 8, false)]).toEqual(["dim 1", "000000zz"]);
    const grid = tensor(
      [2, 2],
      [0, 1, 2, 3].map((file) => ({ offsets: [file >> 1, file & 1], sizes: [1, 1], file })),
    );
    expect([cutOf(grid), shardBar(grid, 4, false)]).toEqual(["dims 0, 1", "++++"]);
    const scalar = tensor([], [{ offsets: [], sizes: [], file: 63 }]);
    expect([cutOf(scalar), shardBar(scalar, 3, false)]).toEqual(["whole", "111"]);
    const empty = tensor([0, 4], [{ offsets: [0, 0], sizes: [0, 4], file: 0 }]);
    expect([cutOf(empty), shardBar(empty, 3, false)]).toEqual(["whole", "---"]);
  });

  test("of more rows than cells shows those in the middle of each", () => {
    const rows = tensor(
      [1000],
      Array.from({ length: 10 }, (_, file) => ({ offsets: [100 * file], sizes: [100], file })),
    );
    expect(shardBar(rows, 10, false)).toBe("0123456789");
    expect(shardBar(rows, 5, false)).toBe("13579");
  });

  test("shortens names in the middle", () => {
    expect(shorten("model.h.0.weight", 16)).toBe("model.h.0.weight");
    expect(shorten("model.h.0.weight", 9)).toBe("mode…ight");
    expect(shorten("émodel", 3)).toBe("é…l");
  });
});

describe("colour", () => {
  const before = process.env.NO_COLOR;
  afterEach(() => {
    if (before === undefined) delete process.env.NO_COLOR;
    else process.env.NO_COLOR = before;
  });

  test("follows the choice, then NO_COLOR", () => {
    expect([useColour("always"), useColour("never")]).toEqual([true, false]);
    process.env.NO_COLOR = "1";
    expect(useColour("auto")).toBe(false);
  });
});

/** Third parties' plugins: written against the package alone, loaded by path, used by name. */
import { describe, expect, spyOn, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cpuPlugin } from "../../../backends/cpu/mod.ts";
import { BACKEND, type Backend, createRegistry, SHARDING, usePlugins } from "../../../mod.ts";
import { fixture, inFolder, type RUNTIMES, readLog, run } from "../../support/command.ts";
import countingBackend from "./counting-backend.ts";
import lastDimSharding from "./last-dim-sharding.ts";

const FOLDER = fileURLToPath(new URL("./", import.meta.url));
const PLUGINS = ["counting-backend.ts", "last-dim-sharding.ts", "ledger-store.ts"];
const TINY = [
  ...["--model", fixture("gpt2-tiny/model"), "--tokens", fixture("gpt2-tiny/tokens.safetensors")],
  ...["--steps", "3"],
];

/** A config file in a folder; plugins by paths from there. */
function configFile(folder: string, yaml: string): string {
  const path = join(folder, "run.yaml");
  writeFileSync(path, yaml.replaceAll("FOLDER", FOLDER));
  return path;
}

async function losses(folder: string, args: readonly string[], runtime: keyof typeof RUNTIMES = "bun") {
  const log = join(folder, `${crypto.randomUUID()}.jsonl`);
  const { code, stderr, stdout } = await run(["train", ...TINY, "--log", log, ...args], runtime);
  expect({ code, stderr: stderr.replace(/^(note|warning): .*\n/gim, "") }).toEqual({ code: 0, stderr: "" });
  return { losses: (await readLog(log)).map(({ loss }) => loss!), stdout };
}

test("are written as an outsider would, in under 150 lines", () => {
  expect(
    readdirSync(FOLDER)
      .filter((name) => !name.endsWith(".test.ts"))
      .sort(),
  ).toEqual(PLUGINS);
  for (const name of PLUGINS) {
    const text = readFileSync(join(FOLDER, name), "utf8");
    expect(text.split("\n").length).toBeLessThan(150);
    const imports = [...text.matchAll(/from "([^"]+)"/g)].map((match) => match[1]!);
    expect(imports.filter((from) => from !== "../../../mod.ts" && !from.startsWith("node:"))).toEqual([]);
  }
});

describe("one config file", () => {
  const yaml = [
    "num_processes: 2",
    "backend: BACKEND",
    "plugins:",
    "  - FOLDER/counting-backend.ts",
    "  - FOLDER/last-dim-sharding.ts",
    "fsdp_config:",
    "  fsdp_version: VERSION",
    "  min_columns: 8",
  ].join("\n");

  test("trains the same with three values of backend and fsdp_version, in each rank's thread", async () => {
    await inFolder(async (folder) => {
      const all: number[][] = [];
      for (const [backend, version] of [
        ["cpu", "2"],
        ["counting", "1"],
        ["counting", "last-dim"],
        ["webgpu", "last-dim"],
      ] as const) {
        const path = configFile(folder, yaml.replace("BACKEND", backend).replace("VERSION", version));
        const run = await losses(folder, ["--config_file", path]);
        all.push(run.losses);
        expect(run.stdout.includes("rank 1 computed")).toBe(backend === "counting");
        expect(run.stdout.includes("last-dim over 2 ranks")).toBe(version === "last-dim");
      }
      const [first, ...others] = all;
      expect(first!.length).toBe(3);
      for (const other of others) {
        for (const [i, loss] of other.entries()) expect(Math.abs(loss / first![i]! - 1)).toBeLessThan(1e-5);
      }
    });
  }, 60_000);

  test("is overruled by the command line, under Deno too", async () => {
    await inFolder(async (folder) => {
      const path = configFile(folder, yaml.replace("BACKEND", "tpu").replace("VERSION", "2"));
      const args = ["--config_file", path, "--backend", "counting", "--fsdp-version", "last-dim"];
      const { stdout } = await losses(folder, [...args, "--fsdp-options", "min-columns=16"], "deno");
      expect(stdout).toContain("last-dim over 2 ranks");
      expect(stdout).toContain("rank 0 computed");
    });
  }, 60_000);
});

test("a launched script runs on the backend that a plugin brings", async () => {
  const script = fileURLToPath(new URL("../../plugins/accelerate/scripts/top-level.ts", import.meta.url));
  const plugin = ["--plugin", join(FOLDER, "counting-backend.ts")];
  const { stdout } = await run(["launch", ...plugin, "--backend", "counting", "--nproc", "2", script]);
  expect(stdout.match(/"backend":"counting"/g)).toHaveLength(2);
});

test("a checkpoint store of one's own takes a run's checkpoints and gives them back, and its command reads them", async () => {
  await inFolder(async (folder) => {
    const plugin = ["--plugin", join(FOLDER, "ledger-store.ts")];
    const save = `ledger://${join(folder, "runs")}`;
    await losses(folder, [...plugin, "--save", save, "--save-every", "2", "--world-size", "2"]);
    const { stdout } = await run([...plugin, "ledger", join(folder, "runs")]);
    expect(stdout).toBe("step-00000002 committed\nstep-00000003 committed\n");
    const resumed = await losses(folder, [...plugin, "--save", save, "--resume", "latest", "--steps", "4"]);
    expect(resumed.losses).toHaveLength(1);
    expect((await run(["ledger", ...plugin, join(folder, "none")])).stderr).toContain(
      "cannot show the ledger",
    );
  });
}, 60_000);

test("the backend counts exactly what a product costs", async () => {
  const registry = createRegistry({ root: import.meta.url });
  usePlugins(registry, [cpuPlugin, countingBackend]);
  const backend: Backend = await registry.get(BACKEND, "counting").create({ settings: {} });
  const span = (length: number) => ({
    buffer: backend.allocate(4 * length, "activation"),
    dtype: "float32" as const,
    offset: 0,
    length,
  });
  const matrix = (rows: number, columns: number) => ({
    span: span(rows * columns),
    rowStride: columns,
    batchStride: 0,
    transposed: false,
  });
  backend.kernels.matmul({ a: matrix(2, 3), b: matrix(3, 5), out: matrix(2, 5), batch: 1, m: 2, n: 5, k: 3 });
  await backend.flush();
  const lines: string[] = [];
  const log = spyOn(console, "log").mockImplementation((line) => void lines.push(String(line)));
  try {
    await backend.dispose();
  } finally {
    log.mockRestore();
  }
  expect(backend.name).toBe("counting");
  expect(lines).toEqual(['rank 0 computed {"matmul":60}']);
});

test("the version's options are checked by name, type and range", async () => {
  const registry = createRegistry({ root: import.meta.url });
  usePlugins(registry, [lastDimSharding]);
  expect(Object.keys(registry.get(SHARDING, "last-dim").options ?? {})).toEqual(["min-columns"]);
  const plugin = ["--plugin", join(FOLDER, "last-dim-sharding.ts"), "--fsdp-version", "last-dim"];
  for (const [args, says] of [
    [
      [...plugin, "--fsdp-options", "min-colums=3"],
      'unknown option of FSDP version "last-dim": given "min-colums", closest is "min-columns"',
    ],
    [[...plugin, "--fsdp-options", "min-columns=0"], 'given "0", allowed are integers from 1'],
    [
      ["--fsdp-version", "last-dim"],
      'cannot use --fsdp-version: given "last-dim", allowed are 1, 2, fsdp2-float8 and what plugins bring',
    ],
    [["--fsdp-options", "min-columns=3"], 'unknown option of FSDP version "fsdp2": given "min-columns"'],
  ] as const) {
    const { code, stderr } = await run(["train", ...TINY, ...args]);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stderr).toContain(says);
    expect(code).toBe(1);
  }
}, 30_000);

/** The page that compares FSDP1 and FSDP2: everything on it runs, and gives what its rows say. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readLog } from "../support/command.ts";
import { asCheckout, codeBlocks, runBlocks, runShell, typeErrors } from "./code-blocks.ts";

const PAGE = readFileSync(new URL("../../plugins/fsdp1-vs-fsdp2.md", import.meta.url), "utf8");
const [setup, ...blocks] = codeBlocks(PAGE);

/** A line of `train --log`. */
interface Step {
  readonly loss: number;
  readonly memory: { readonly peakState: number };
}

type ReadSteps = (file: string) => Promise<readonly Step[]>;

const folders: string[] = [];
function checkout(): string {
  const folder = mkdtempSync(join(tmpdir(), "fsdp-docs-"));
  folders.push(folder);
  asCheckout(folder);
  return folder;
}
const stepsIn =
  (folder: string): ReadSteps =>
  async (file) =>
    (await readLog(join(folder, file))) as unknown as Step[];
const losses = (steps: readonly Step[]): number[] => steps.map(({ loss }) => loss);

/** FSDP2 with its defaults, a step more than most runs here. */
let plain: readonly Step[] = [];
beforeAll(async () => {
  const folder = checkout();
  const { code } = await runShell(folder, `${setup!.text}\ntrain --steps 3 --log plain.jsonl`);
  expect(code).toBe(0);
  plain = await stepsIn(folder)("plain.jsonl");
});
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** The plain run's losses, from the first on, within 1e-6. */
function expectPlain(steps: readonly Step[], count = 2): void {
  expect(steps.length).toBe(count);
  for (const [i, { loss }] of steps.entries()) expect(Math.abs(loss / plain[i]!.loss - 1)).toBeLessThan(1e-6);
}

/** The plain run's losses to the bit. */
function expectPlainBits(steps: readonly Step[]): void {
  expect(losses(steps)).toEqual(losses(plain.slice(0, 2)));
}

/** An option that is ignored changes not a bit. */
const ignored = async (read: ReadSteps): Promise<void> => {
  expectPlainBits(await read("given.jsonl"));
};

/** What sections say beside what they show, of their logs. */
const CLAIMS: Readonly<Record<string, (read: ReadSteps) => Promise<void>>> = {
  "`fsdp_reshard_after_forward`": async (read) => {
    const pairs = [
      ["full-shard", "true"],
      ["shard-grad-op", "false"],
      ["no-shard", "replicas"],
    ] as const;
    const peaks: number[] = [];
    for (const [one, two] of pairs) {
      const [left, right] = [await read(`${one}.jsonl`), await read(`${two}.jsonl`)];
      for (const steps of [left, right]) expectPlain(steps);
      expect(left.map(({ memory }) => memory.peakState)).toEqual(right.map(({ memory }) => memory.peakState));
      peaks.push(right[0]!.memory.peakState);
    }
    expect(peaks).toEqual(peaks.toSorted((a, b) => a - b));
    expect(new Set(peaks).size).toBe(pairs.length);
    expectPlain(await read("number.jsonl"));
  },
  "`fsdp_sharding_strategy`": ignored,
  "`fsdp_backward_prefetch`": ignored,
  "`fsdp_state_dict_type`": async () => {},
  "`fsdp_forward_prefetch`": async (read) => {
    for (const file of ["implicit.jsonl", "ahead.jsonl"]) expectPlainBits(await read(file));
  },
  "`fsdp_cpu_ram_efficient_loading`": async (read) => {
    expectPlain(await read("fsdp1.jsonl"));
    expectPlainBits(await read("fsdp2.jsonl"));
  },
  "`fsdp_sync_module_states`": ignored,
  "`fsdp_use_orig_params`": ignored,
  "`fsdp_version`": async (read) => {
    expectPlainBits(await read("default.jsonl"));
    expectPlain(await read("fsdp1.jsonl"));
  },
  "Moving a config file": async (read) => {
    for (const file of ["old.jsonl", "new.jsonl"]) expectPlain(await read(file));
  },
  "Moving code": async () => {},
  "Moving checkpoints": async (read) => {
    const legs = [await read("first.jsonl"), await read("second.jsonl"), await read("third.jsonl")];
    expectPlain(legs.flat(), 3);
  },
};

describe("plugins/fsdp1-vs-fsdp2.md", () => {
  test("has commands for every row of its table, and claims checked for every section with commands", () => {
    const rows = PAGE.slice(PAGE.indexOf("## Options"), PAGE.indexOf("### "))
      .split("\n")
      .filter((line) => /^\| (- |`)/.test(line))
      .map((line) => /`\w+`/.exec(line)![0]);
    expect(rows.length).toBe(9);
    const sections = [
      ...new Set(blocks.filter(({ language }) => language === "sh").map((each) => each.section)),
    ];
    expect(sections.slice(0, rows.length)).toEqual(rows);
    expect(sections).toEqual(Object.keys(CLAIMS));
  });

  test("has TypeScript that the project's own compiler settings pass", async () => {
    const folder = checkout();
    const scripts = blocks.filter(({ file }) => file?.endsWith(".ts"));
    expect(scripts.length).toBeGreaterThan(0);
    for (const { file, text } of scripts) writeFileSync(join(folder, file!), text);
    expect(await typeErrors(folder)).toBe("");
  }, 60_000);

  for (const [section, claims] of Object.entries(CLAIMS)) {
    test(`runs as shown: ${section.replaceAll("`", "")}`, async () => {
      const folder = checkout();
      const own = blocks.filter((block) => block.section === section);
      await runBlocks(folder, own, setup!.text);
      await claims(stepsIn(folder));
    }, 60_000);
  }
});

import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runCommandLine } from "../../../../core/runtime/command-line.ts";
import { registry } from "../../../../mod.ts";
import type { Estimate } from "../../../../plugins/accelerate/estimate/estimate.ts";
import { fixture, inFolder, run } from "../../../support/command.ts";

const PAGE = fileURLToPath(new URL("../../../../plugins/accelerate/estimate/README.md", import.meta.url));
const TINY = ["estimate", fixture("gpt2-tiny/model"), "--batch-size", "1"];

/** Runs a command line within this process. */
async function runHere(args: readonly string[]) {
  const lines = { stdout: "", stderr: "" };
  const code = await runCommandLine(registry, args, {
    print: (line) => {
      lines.stdout += `${line}\n`;
    },
    printError: (line) => {
      lines.stderr += `${line}\n`;
    },
    drain: async () => {},
  });
  return { code, ...lines };
}

async function json(...args: readonly string[]): Promise<Estimate> {
  const { code, stdout, stderr } = await runHere([...TINY, "--json", ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout) as Estimate;
}

async function refusal(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runHere(["estimate", ...args]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr.trimEnd().split("\n").length).toBe(1);
  return stderr;
}

describe("estimate", () => {
  for (const runtime of ["bun", "deno"] as const) {
    test(`prints every strategy in a table, the same under ${runtime}`, async () => {
      const { code, stdout, stderr } = await run(
        [...TINY, "--world-size", "4", "--ranks-per-node", "2"],
        runtime,
      );
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const lines = stdout.trimEnd().split("\n");
      expect(lines[0]).toBe("gpt2, 120,576 parameters; 4 ranks, 2 a node");
      const names = lines.slice(6, -2).map((line) => line.split("  ")[0]);
      // Those of versions that other plugins bring come after.
      expect(names.slice(0, 12)).toEqual([
        "DDP (fsdp1 NO_SHARD)",
        "fsdp1 SHARD_GRAD_OP",
        "fsdp1 FULL_SHARD",
        "fsdp1 HYBRID_SHARD_ZERO2",
        "fsdp1 HYBRID_SHARD",
        "fsdp2 reshard false",
        "fsdp2 reshard node",
        "fsdp2 reshard true",
        "fsdp2 HSDP reshard false",
        "fsdp2 HSDP reshard true",
        "fsdp2 reshard true, offload",
        "fsdp2 reshard true, bf16",
      ]);
    });
  }

  test("prints what its page shows", async () => {
    const page = await Bun.file(PAGE).text();
    const [, line, shown] = /^ {4}bun mod\.ts (estimate .*)\n\n```text\n([\s\S]*?)\n```$/m.exec(page)!;
    const args = [...line!.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
    expect((await runHere(args)).stdout.trimEnd()).toBe(shown!);
  });

  test("orders strategies as they trade memory for communication", async () => {
    const { strategies, parameters } = await json("--world-size", "8", "--ranks-per-node", "2");
    const of = (name: string) => strategies.find((one) => one.name === name)!;
    const state = (name: string) => of(name).memory.peakState;
    const [none, whole, node, cut] = [
      "DDP (fsdp1 NO_SHARD)",
      "fsdp2 reshard false",
      "fsdp2 reshard node",
      "fsdp2 reshard true",
    ];
    expect(state(none!)).toBeGreaterThan(state(whole!));
    expect(state(whole!)).toBeGreaterThan(state(node!));
    expect(state(node!)).toBeGreaterThan(state(cut!));
    expect(of(whole!).communication.bytesSent).toBeLessThan(of(cut!).communication.bytesSent);
    expect(of(none!).memory.shards.parameter).toBe(4 * parameters);
    expect(of("fsdp2 reshard true, offload").memory.hostPeakTotal).toBeGreaterThan(0);
    expect(of(cut!).memory.hostPeakTotal).toBe(0);
  });

  test("predicts times for 8 to 16384 ranks when it is told of a network", async () => {
    const args = ["--world-size", "16", "--latency", "10", "--bandwidth", "25", "--only", "reshard true"];
    const { strategies } = await json(...args);
    expect(strategies.map(({ name }) => name)).toEqual([
      "fsdp2 reshard true",
      "fsdp2 HSDP reshard true",
      "fsdp2 reshard true, offload",
      "fsdp2 reshard true, bf16",
    ]);
    const [one, hybrid] = strategies;
    const worlds = Array.from({ length: 12 }, (_, i) => 8 * 2 ** i);
    expect(one!.scaling!.map(({ worldSize }) => worldSize)).toEqual(worlds);
    expect(hybrid!.scaling!.map(({ worldSize }) => worldSize)).toEqual(worlds.slice(1));
    const { worldSize: _, ...at16 } = one!.scaling![1]!;
    expect(one!.communication.seconds!.ring).toBeCloseTo(at16.ring, 12);
    expect(one!.communication.seconds!.tree).toBeCloseTo(at16.tree, 12);
    expect(one!.scaling!.every(({ ring, tree }) => tree <= ring)).toBe(true);
    const { stdout } = await runHere([...TINY, ...args]);
    expect(stdout).toContain("communication of a step, ms");
  });

  test("takes thousands of ranks, precision, and checkpointing", async () => {
    const args = ["--world-size", "4096", "--only", "HSDP reshard true"];
    const plain = await json(...args);
    const [{ memory }] = plain.strategies as [Estimate["strategies"][number]];
    const narrow = await json(...args, "--mixed-precision", "bf16", "--activation-checkpointing");
    expect(narrow.strategies[0]!.memory.peak.activation).toBeLessThan(memory.peak.activation);
    expect(narrow.strategies[0]!.memory.shards).toEqual(memory.shards);
  });

  test("takes the model as train does too", async () => {
    const { stdout } = await runHere(TINY);
    const [command, directory, ...rest] = TINY;
    expect((await runHere([command!, "--model", directory!, ...rest])).stdout).toBe(stdout);
    const text = await Bun.file(join(directory!, "config.json")).text();
    expect((await runHere([command!, "--config-model", text, ...rest])).stdout).toBe(stdout);
  });

  test("refuses what it cannot estimate in one line", async () => {
    expect(await refusal()).toContain("0 models given, give one");
    expect(await refusal("gpt2", "gpt2")).toContain('allowed are "[MODEL]"');
    expect(await refusal("gpt2", "--model", "gpt2")).toContain("2 models given, give one");
    expect(await refusal("nothing-like-it")).toContain("it cannot be read (ENOENT), allowed are a directory");
    expect(await refusal("gpt2", "--latency", "1")).toContain("--bandwidth is missing");
    expect(await refusal("gpt2", "--seq-len", "2048")).toContain(
      "--seq-len: given 2048, the model takes up to 1024",
    );
    expect(await refusal("gpt2", "--only", "zero-infinity")).toContain("strategies for these ranks are DDP");
    expect(await refusal("gpt2", "--world-size", "100000")).toContain("from 1 to 16384");
    await inFolder(async (folder) => {
      const path = join(folder, "config.json");
      const says = async (text: string) => {
        await writeFile(path, text);
        return await refusal(folder);
      };
      expect(await says("{")).toContain("not valid JSON");
      expect(await says("[]")).toContain("no model configuration");
      expect(await says('{"model_type": "bert"}')).toContain(
        'its "model_type" is "bert", allowed are "gpt2", "llama"',
      );
      expect(await says('{"model_type": "gpt2", "n_embd": -1}')).toContain('"n_embd"');
      expect(await says(`{"x": "${"x".repeat(2 ** 20)}"}`)).toContain("allowed are 1048576");
    });
  });
});

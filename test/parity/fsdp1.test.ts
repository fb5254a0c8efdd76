/** The command line under FSDP1 against PyTorch's FSDP1 runs of tiny models: losses, norms, and flat parameters. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { modulesToWrap, transformerWrap } from "../../core/engine/wrap-policy.ts";
import { MODEL } from "../../core/runtime/model-family.ts";
import { registry } from "../../mod.ts";
import { FullyShardedDataParallel } from "../../plugins/fsdp1/mod.ts";
import { testOnGpu } from "../backends/webgpu/gpu.ts";
import { inFolder, readLog, run } from "../support/command.ts";
import { runRanks } from "../support/ranks.ts";
import { type Reference, type TinyModel, tinyModel } from "../support/tiny-model.ts";

/** What PyTorch's run says of itself. */
interface Fsdp1Reference extends Reference {
  readonly strategy: "FULL_SHARD" | "SHARD_GRAD_OP";
  /** Of every rank, the root's first. */
  readonly handles: readonly (readonly { readonly fqns: readonly string[]; readonly unpadded: number }[])[];
}

const FILES = ["fsdp1-FULL_SHARD.json", "fsdp1-SHARD_GRAD_OP.json"] as const;

function expectClose(log: readonly Record<string, number>[], { losses, grad_norms }: Reference): void {
  expect(log.map(({ step }) => step!)).toEqual(losses.map((_, i) => i + 1));
  for (const [i, loss] of losses.entries()) {
    expect(Math.abs(log[i]!.loss! - loss) / loss).toBeLessThan(2e-4);
    expect(Math.abs(log[i]!.grad_norm! - grad_norms[i]!) / grad_norms[i]!).toBeLessThan(1e-3);
  }
}

/** Runtime, ranks, and options beside the strategy, of which the fixture of a name tells the first. */
type Case = readonly [
  runtime: "bun" | "deno",
  worldSize: number,
  file: (typeof FILES)[number],
  extra: readonly string[],
];

const [FULL_SHARD, SHARD_GRAD_OP] = FILES;
const SHORT: readonly Case[] = [
  ["bun", 2, FULL_SHARD, []],
  ["bun", 2, SHARD_GRAD_OP, []],
];
const LONG: readonly Case[] = [
  ...SHORT,
  ["bun", 1, FULL_SHARD, []],
  ["bun", 4, FULL_SHARD, ["--fsdp-backward-prefetch", "BACKWARD_POST", "--fsdp-forward-prefetch"]],
  ["bun", 2, FULL_SHARD, ["--no-fsdp-use-orig-params", "--fsdp-offload-params"]],
  ["bun", 4, FULL_SHARD, ["--fsdp-sharding-strategy", "HYBRID_SHARD", "--dp-replicate-size", "2"]],
  ["bun", 2, FULL_SHARD, ["--fsdp-sharding-strategy", "NO_SHARD"]],
  ["deno", 2, FULL_SHARD, []],
  ["bun", 2, FULL_SHARD, ["--backend", "webgpu"]],
];

async function reproduce(model: TinyModel, [runtime, worldSize, file, extra]: Case): Promise<void> {
  const reference = model.json<Fsdp1Reference>(file);
  await inFolder(async (folder) => {
    const log = join(folder, "log.jsonl");
    const strategy = ["--fsdp-sharding-strategy", reference.strategy];
    const how = ["--fsdp-version", "1", "--world-size", String(worldSize), "--log", log];
    const named = extra.includes("--fsdp-sharding-strategy") ? [] : strategy;
    const { code, stderr } = await run(["train", ...model.options, ...how, ...named, ...extra], runtime);
    // Dawn itself prints about limits that it lowers.
    const said = stderr.split("\n").filter((line) => line !== "" && !line.startsWith("Warning: maxDynamic"));
    expect({ code, said }).toEqual({ code: 0, said: [] });
    expectClose(await readLog(log), reference);
  });
}

for (const name of ["gpt2-tiny", "llama-tiny"] as const) {
  const model = tinyModel(name);

  describe(`train reproduces PyTorch FSDP1's ${name}`, () => {
    for (const each of name === "gpt2-tiny" ? LONG : SHORT) {
      const [runtime, worldSize, file, extra] = each;
      const register = extra.includes("webgpu") ? testOnGpu : test;
      const title = `of ${file} on ${worldSize} ranks under ${runtime} ${extra.join(" ")}`;
      register(title, () => reproduce(model, each), 60_000);
    }
  });

  test(`the flat parameters of ${name} have the names, the order and the lengths that PyTorch's have`, async () => {
    const { handles } = model.json<Fsdp1Reference>("fsdp1-FULL_SHARD.json");
    await runRanks(handles.length, async ({ mesh, rank }) => {
      const config = model.json<{ model_type: string }>("model/config.json");
      const { module, blockClasses } = registry.get(MODEL, config.model_type).create(config);
      const policy = transformerWrap(module, blockClasses);
      const fsdp = new FullyShardedDataParallel(module, {
        mesh,
        autoWrapPolicy: policy,
        useOrigParams: true,
      });
      expect(
        fsdp.handles.map(({ names, numel, paddingNumel }) => ({
          fqns: names,
          unpadded: numel,
          paddingNumel,
        })),
      ).toEqual(handles[rank]!.map(({ fqns, unpadded }) => ({ fqns, unpadded, paddingNumel: 0 })));
      expect(modulesToWrap(module, policy)).toHaveLength(handles[rank]!.length - 1);
    });
  });
}

test("a run goes on from FSDP1's checkpoint under FSDP2, and back, at other world sizes", async () => {
  const model = tinyModel("gpt2-tiny");
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    const leg = async (
      version: number,
      worldSize: number,
      steps: number,
      log: string,
      resume: readonly string[],
    ) => {
      const how = [
        "--fsdp-version",
        String(version),
        "--world-size",
        String(worldSize),
        "--steps",
        String(steps),
      ];
      const files = ["--save", path("runs"), "--log", path(log), ...resume];
      const { code, stderr } = await run(["train", ...model.options, ...how, ...files]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      return await readLog(path(log));
    };
    const latest = ["--resume", "latest"];
    const logs = [
      await leg(1, 4, 6, "a.jsonl", []),
      await leg(2, 2, 12, "b.jsonl", latest),
      await leg(1, 1, 20, "c.jsonl", latest),
    ];
    expectClose(logs.flat(), model.json<Reference>("fsdp1-FULL_SHARD.json"));
  });
}, 60_000);

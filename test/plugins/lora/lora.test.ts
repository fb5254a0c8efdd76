import { describe, expect, test } from "bun:test";
import { ConfigError, StateError } from "../../../core/contracts/errors.ts";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import { modulesToWrap, transformerWrap } from "../../../core/engine/wrap-policy.ts";
import { Linear, Sequential } from "../../../core/nn/mod.ts";
import { FORMAT, MODEL, ops, optim, registry } from "../../../mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { addLora, loraParameters } from "../../../plugins/lora/mod.ts";
import { fixture } from "../../support/command.ts";
import { gpt2TinyJson } from "../../support/gpt2-tiny.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";

const TARGETS = ["attn.c_attn", "mlp.c_fc"];

/** Trains the factors of gpt2-tiny on a text of four rows, which the ranks share. */
async function train(rank: TestRank, how: { readonly sharded: boolean; readonly adapted?: boolean }) {
  const weights = await registry
    .get(FORMAT, "safetensors")
    .open(fixture("gpt2-tiny/model/model.safetensors"));
  try {
    const family = registry.get(MODEL, "gpt2");
    const { module, blockClasses } = family.create(gpt2TinyJson("model/config.json"), weights);
    if (how.adapted !== false) addLora(module, { targetModules: TARGETS, rank: 2 });
    if (how.sharded) {
      for (const block of modulesToWrap(module, transformerWrap(module, blockClasses))) {
        fullyShard(block, { mesh: rank.mesh });
      }
      fullyShard(module, { mesh: rank.mesh });
    }
    await module.to(rank.device);
    const whole = async () => {
      const all: Record<string, readonly number[]> = {};
      for (const [name, parameter] of module.namedParameters()) {
        all[name] = Array.from(await gatherParameter(parameter), Number);
      }
      return all;
    };
    const before = await whole();
    let reduced = 0;
    traceUnits(module, (event) => {
      if (event.kind === "reduceScatter") reduced += event.numel;
    });
    const optimizer = new optim.AdamW(how.adapted === false ? module.parameters() : loraParameters(module), {
      lr: 0.02,
    });
    const rows = 4 / rank.worldSize;
    const ids = Int32Array.from({ length: rows * 9 }, (_, i) => ((rank.rank * rows * 9 + i) * 7) % 50);
    const losses: number[] = [];
    for (let step = 0; step < 4; step++) {
      const loss = await rank.device.scope(async () => {
        const text = rank.device.tensor(ids, { shape: [rows, 9] });
        const error = await module.call(ops.slice(text, 1, 0, 8), ops.slice(text, 1, 1, 9));
        if (how.adapted !== false) await error.backward();
        return new Float64Array([await error.item()]);
      });
      await rank.collective.allReduce(loss, "avg", "float64").wait();
      losses.push(loss[0]!);
      if (how.adapted === false) break;
      optimizer.step();
      optimizer.zeroGrad();
    }
    const elements = loraParameters(module).reduce((sum, { numel }) => sum + numel, 0);
    return { losses, before, after: await whole(), reduced, elements };
  } finally {
    await weights.close();
  }
}

describe("a frozen GPT-2 with factors", () => {
  test("computes at first what it did, learns, and changes in nothing but its factors", async () => {
    const [[plain], [adapted]] = await Promise.all([
      runRanks(1, (rank) => train(rank, { sharded: false, adapted: false })),
      runRanks(1, (rank) => train(rank, { sharded: false })),
    ]);
    expect(adapted!.losses[0]).toBeCloseTo(plain!.losses[0]!, 5);
    expect(adapted!.losses.at(-1)!).toBeLessThan(adapted!.losses[0]! - 0.01);
    const changed = Object.keys(adapted!.after).filter(
      (name) => !Bun.deepEquals(adapted!.after[name], adapted!.before[name]),
    );
    const factors = Object.keys(adapted!.after).filter((name) => name.includes(".lora_"));
    expect(changed).toEqual(factors);
    expect(factors.every((name) => /c_(attn|fc)\.lora_[AB]\.weight$/.test(name))).toBe(true);
    expect(Object.keys(adapted!.after).filter((name) => !factors.includes(name))).toEqual(
      Object.keys(plain!.after),
    );
  });

  for (const worldSize of [2, 4]) {
    test(`trains the same sharded over ${worldSize} ranks, which reduce the factors alone`, async () => {
      const [alone] = await runRanks(1, (rank) => train(rank, { sharded: false }));
      for (const { losses, after, reduced, elements } of await runRanks(worldSize, (rank) =>
        train(rank, { sharded: true }),
      )) {
        for (const [i, loss] of losses.entries()) expect(loss).toBeCloseTo(alone!.losses[i]!, 4);
        for (const [name, values] of Object.entries(after)) {
          if (!name.includes(".lora_")) expect(values).toEqual(alone!.after[name]!);
        }
        expect(reduced).toBeGreaterThanOrEqual(losses.length * elements);
        // Two rows of a factor are padded to as many as there are ranks.
        expect(reduced).toBeLessThanOrEqual(losses.length * elements * Math.ceil(worldSize / 2));
      }
    });
  }
});

describe("addLora", () => {
  test("leaves frozen weights in their dtype, beside factors in float32, in one group", async () => {
    await runRanks(2, async (rank) => {
      const low = { dtype: "bfloat16" } as const;
      const inner = new Sequential(new Linear(4, 6, low), new Linear(6, 3, low));
      for (const parameter of inner.parameters()) {
        parameter.initializer = ({ out }) => void (out as Uint16Array).fill(0x3f80);
      }
      const model = addLora(inner, { targetModules: ["0"], rank: 3, alpha: 6 });
      fullyShard(model, { mesh: rank.mesh, mpPolicy: { paramDtype: "float32" } });
      await model.to(rank.device);
      await rank.device.scope(async () => {
        await ops.sum(await model.call(rank.device.ones([2, 4]))).backward();
      });
      const [first] = model.parameters();
      expect([first!.local.dtype, first!.grad]).toEqual(["bfloat16", undefined]);
      const factors = loraParameters(model);
      expect(factors.map(({ shape, grad, local }) => [shape, grad!.dtype, local.dtype])).toEqual([
        [[3, 4], "float32", "float32"],
        [[6, 3], "float32", "float32"],
      ]);
    });
  });

  test("refuses what it cannot adapt, by name", async () => {
    const model = new Sequential(new Linear(2, 2), new Linear(2, 2));
    expect(() => addLora(model, { targetModules: ["c_attn"] })).toThrow(ConfigError);
    expect(() => addLora(model, { targetModules: ["c_attn"] })).toThrow(
      /"c_attn" name no linear layer, there are 0, 1/,
    );
    expect(() => addLora(model, { targetModules: [] })).toThrow(ConfigError);
    expect(() => addLora(model, { targetModules: ["0"], rank: 0 })).toThrow(/rank 0/);
    expect(() => addLora(model, { targetModules: ["0"], alpha: Number.NaN })).toThrow(/alpha NaN/);
    expect(model.parameters().every(({ requiresGrad }) => requiresGrad)).toBe(true);
    addLora(model, { targetModules: ["0"] });
    expect(() => addLora(model, { targetModules: ["0"] })).toThrow(StateError);
    await runRanks(1, async ({ mesh }) => {
      fullyShard(model, { mesh });
      expect(() => addLora(model, { targetModules: ["1"] })).toThrow(/is sharded/);
    });
  });
});

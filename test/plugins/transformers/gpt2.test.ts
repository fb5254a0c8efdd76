import { describe, expect, test } from "bun:test";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { CheckpointError, ConfigError, ShapeError } from "../../../core/contracts/errors.ts";
import { FORMAT } from "../../../core/contracts/plugin.ts";
import { MODEL } from "../../../core/runtime/model-family.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { registry } from "../../../mod.ts";
import { GPT2LMHeadModel, parseGPT2Config } from "../../../plugins/transformers/mod.ts";
import { fixture } from "../../support/command.ts";
import { GPT2_TINY_CONFIG, gpt2TinyJson } from "../../support/gpt2-tiny.ts";

const safetensors = registry.get(FORMAT, "safetensors");
const family = registry.get(MODEL, "gpt2");

async function withDevice<T>(body: (device: Device) => Promise<T>): Promise<T> {
  const backend = await cpuBackend.create({});
  try {
    return await body(new Device(backend, { seed: 3 }));
  } finally {
    await backend.dispose();
  }
}

const tiny = { vocab_size: 11, n_positions: 8, n_embd: 8, n_layer: 2, n_head: 2 };
const noDropout = { embd_pdrop: 0, resid_pdrop: 0, attn_pdrop: 0 };

describe("GPT-2", () => {
  test("gives the logits of Hugging Face's own model from the same files", async () => {
    const tokens = await safetensors.open(fixture("gpt2-tiny/tokens.safetensors"));
    const expected = await safetensors.open(fixture("gpt2-tiny/logits.safetensors"));
    const weights = await safetensors.open(fixture("gpt2-tiny/model/model.safetensors"));
    await withDevice(async (device) => {
      const { module } = family.create(gpt2TinyJson("model/config.json"), weights);
      await module.to(device);
      module.eval();
      const ids = (await tokens.read("tokens", { offsets: [0, 0, 0], sizes: [1, 4, 32] })) as BigInt64Array;
      const theirs = (await expected.read("logits")) as Float32Array;
      const ours = await device.noGrad(async () => {
        const logits = await module.call(device.tensor(ids, { shape: [4, 32] }));
        expect(logits.shape).toEqual([4, 32, 256]);
        return (await logits.data()) as Float32Array;
      });
      expect(ours.length).toBe(theirs.length);
      const worst = ours.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs[i]!)), 0);
      expect(worst).toBeLessThan(1e-4);
    });
    for (const reader of [tokens, expected, weights]) await reader.close();
  });

  test("has Hugging Face's parameter names, the tied head once", () => {
    const names = [...new GPT2LMHeadModel(GPT2_TINY_CONFIG).namedParameters()].map(([name]) => name);
    expect(names).toContain("transformer.h.1.attn.c_attn.bias");
    expect(names).not.toContain("lm_head.weight");
    const untied = new GPT2LMHeadModel({ ...GPT2_TINY_CONFIG, tie_word_embeddings: false });
    expect([...untied.namedParameters()].map(([name]) => name)).toContain("lm_head.weight");
  });

  test("computes attention with dropout as without it when nothing is dropped", async () => {
    await withDevice(async (device) => {
      const losses: number[] = [];
      // So rare that none of the few hundred numbers drawn here is below it; the path is the unfused one all the same.
      for (const attn_pdrop of [0, 1e-9]) {
        const model = new GPT2LMHeadModel(parseGPT2Config({ ...tiny, ...noDropout, attn_pdrop }));
        await model.to(device);
        await device.scope(async () => {
          const ids = device.tensor(
            Int32Array.from({ length: 12 }, (_, i) => (i * 5) % 11),
            { shape: [2, 6] },
          );
          const loss = await model.call(ids, ids);
          await loss.backward();
          losses.push(await loss.item());
        });
        const gradient = (await model.transformer.h[0]!.attn.c_attn.weight.grad!.data()) as Float32Array;
        losses.push(gradient.reduce((sum, value) => sum + Math.abs(value), 0));
      }
      expect(losses[2]).toBeCloseTo(losses[0]!, 5);
      expect(losses[3]).toBeCloseTo(losses[1]!, 4);
    });
  });

  test("drops differently on every call and rank, and not at all in evaluation mode", async () => {
    const config = parseGPT2Config({ ...tiny, embd_pdrop: 0.5, resid_pdrop: 0.5, attn_pdrop: 0.5 });
    const run = async (rank: number) => {
      const device = new Device(await cpuBackend.create({}), { seed: 3, rank });
      const model = await new GPT2LMHeadModel(config).to(device);
      const ids = device.tensor(Int32Array.of(1, 2, 3), { shape: [1, 3] });
      const sum = async () => await device.scope(async () => await ops.sum(await model.call(ids)).item());
      const drawn = [await sum(), await sum()];
      model.eval();
      return [...drawn, await sum(), await sum()];
    };
    const [first, second] = [await run(0), await run(1)];
    expect(first[0]).not.toBe(first[1]!);
    expect(first[0]).not.toBe(second[0]!);
    expect(first[2]).toBe(first[3]!);
    expect(first[2]).toBe(second[2]!);
    expect(await run(0)).toEqual(first);
  });

  test("refuses sequences that are longer than its positions", async () => {
    await withDevice(async (device) => {
      const model = await new GPT2LMHeadModel(parseGPT2Config({ ...tiny, ...noDropout })).to(device);
      await expect(model.call(device.tensor(new Int32Array(9), { shape: [1, 9] }))).rejects.toThrow(
        ShapeError,
      );
    });
  });

  test("refuses configs that it cannot honour, naming the field", () => {
    expect(() => parseGPT2Config({ n_embd: 10, n_head: 3 })).toThrow(/"n_head" is 3.*"n_embd", which is 10/);
    expect(() => parseGPT2Config({ activation_function: "swish" })).toThrow(ConfigError);
    expect(() => parseGPT2Config({ n_layer: -1 })).toThrow(/"n_layer"/);
    expect(() => parseGPT2Config({ add_cross_attention: true })).toThrow(/"add_cross_attention"/);
    expect(() => parseGPT2Config("gpt2")).toThrow(ConfigError);
  });

  test("lists every parameter that a file lacks or has in another shape", async () => {
    const weights = await safetensors.open(fixture("gpt2-tiny/model/model.safetensors"));
    const config = { ...GPT2_TINY_CONFIG, n_layer: 3, n_positions: 32 };
    expect(() => family.create(config, weights)).toThrow(CheckpointError);
    expect(() => family.create(config, weights)).toThrow(
      /"transformer\.wpe\.weight" is float32 \[64, 64\].*"transformer\.h\.2/s,
    );
    await weights.close();
  });
});

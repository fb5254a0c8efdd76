import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { newHostArray } from "../../../core/contracts/dtype.ts";
import { CheckpointError, ConfigError, ShapeError } from "../../../core/contracts/errors.ts";
import { FORMAT } from "../../../core/contracts/plugin.ts";
import { MODEL } from "../../../core/runtime/model-family.ts";
import { Device } from "../../../core/tensor/device.ts";
import { registry } from "../../../mod.ts";
import { LlamaForCausalLM, parseLlamaConfig } from "../../../plugins/transformers/mod.ts";
import { inFolder } from "../../support/command.ts";
import { tinyModel } from "../../support/tiny-model.ts";

const safetensors = registry.get(FORMAT, "safetensors");
const family = registry.get(MODEL, "llama");
const fixture = tinyModel("llama-tiny");
const config = fixture.json<Record<string, unknown>>("model/config.json");

async function withDevice<T>(body: (device: Device) => Promise<T>): Promise<T> {
  const backend = await cpuBackend.create({});
  try {
    return await body(new Device(backend, { seed: 3 }));
  } finally {
    await backend.dispose();
  }
}

/** Logits of the fixture's first batch. */
async function firstLogits(module: LlamaForCausalLM, device: Device): Promise<Float32Array> {
  const tokens = await safetensors.open(fixture.file("tokens.safetensors"));
  const ids = (await tokens.read("tokens", { offsets: [0, 0, 0], sizes: [1, 4, 32] })) as BigInt64Array;
  await tokens.close();
  await module.to(device);
  module.eval();
  return await device.noGrad(() =>
    device.scope(async () => {
      const logits = await module.call(device.tensor(ids, { shape: [4, 32] }));
      return (await logits.data()) as Float32Array;
    }),
  );
}

/** The model of a path, on a device of its own. */
async function logitsOf(path: string): Promise<Float32Array> {
  const weights = await safetensors.open(path);
  try {
    const { module } = family.create(config, weights);
    return await withDevice((device) => firstLogits(module as LlamaForCausalLM, device));
  } finally {
    await weights.close();
  }
}

function largestGap(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

const names = (extra: Record<string, unknown> = {}): string[] =>
  [...new LlamaForCausalLM(parseLlamaConfig({ ...config, ...extra })).namedParameters()].map(
    ([name]) => name,
  );

const tiny = {
  vocab_size: 11,
  max_position_embeddings: 8,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};

describe("Llama", () => {
  test("gives the logits of Hugging Face's own model from the same files", async () => {
    const expected = await safetensors.open(fixture.file("logits.safetensors"));
    const theirs = (await expected.read("logits")) as Float32Array;
    await expected.close();
    expect(largestGap(await logitsOf(fixture.file("model/model.safetensors")), theirs)).toBeLessThan(1e-5);
  });

  test("reads weights that lie in several files behind an index", async () => {
    const whole = fixture.file("model/model.safetensors");
    await inFolder(async (folder) => {
      const reader = await safetensors.open(whole);
      const places: Record<string, string> = {};
      for (const part of [0, 1, 2]) {
        const file = `model-0000${part + 1}-of-00003.safetensors`;
        const own = reader.names.filter((_, i) => i % 3 === part);
        for (const name of own) places[name] = file;
        const tensors = own.map((name) => ({ name, ...reader.info(name), read: () => reader.read(name) }));
        await safetensors.write(join(folder, file), tensors, {});
      }
      await reader.close();
      const index = JSON.stringify({ metadata: { total_size: 496_384 }, weight_map: places });
      await writeFile(join(folder, "model.safetensors.index.json"), index);
      expect(await logitsOf(folder)).toEqual(await logitsOf(whole));
    });
  });

  test("reads 16-bit weights as the float32 numbers that they are", async () => {
    const reader = await safetensors.open(fixture.file("model/model.safetensors"));
    await inFolder(async (folder) => {
      const write = async (file: string, dtype: "bfloat16" | "float16" | "float32", keep: number) => {
        const tensors = reader.names.map((name) => ({
          name,
          dtype,
          shape: reader.info(name).shape,
          // Numbers of `keep` bits are in all three dtypes.
          read: async () => {
            const bits = new Uint32Array(((await reader.read(name)) as Float32Array).buffer);
            const cut = bits.map((b) => b & (0xffffffff << keep));
            const out = newHostArray(dtype, bits.length);
            const numbers = dtype === "bfloat16" ? cut.map((b) => b >>> 16) : new Float32Array(cut.buffer);
            for (const [i, value] of numbers.entries()) out[i] = value;
            return out;
          },
        }));
        await safetensors.write(join(folder, file), tensors, {});
        return join(folder, file);
      };
      // Seven bits of the mantissa are left; small numbers of float16 are what they are.
      const wide = await logitsOf(await write("f32.safetensors", "float32", 16));
      expect(await logitsOf(await write("bf16.safetensors", "bfloat16", 16))).toEqual(wide);
      expect(largestGap(await logitsOf(await write("f16.safetensors", "float16", 16)), wide)).toBeLessThan(
        1e-5,
      );
    });
    await reader.close();
  });

  test("has Hugging Face's parameter names, whichever options add or leave out", async () => {
    const reader = await safetensors.open(fixture.file("model/model.safetensors"));
    expect(names().sort()).toEqual([...reader.names].sort());
    await reader.close();
    expect(names({ tie_word_embeddings: true })).not.toContain("lm_head.weight");
    const biased = names({ attention_bias: true, mlp_bias: true });
    const added = biased.filter((name) => !names().includes(name) && name.startsWith("model.layers.0."));
    expect(added).toEqual(
      [
        ...["q_proj", "k_proj", "v_proj", "o_proj"].map((name) => `self_attn.${name}`),
        ...["gate_proj", "up_proj", "down_proj"].map((name) => `mlp.${name}`),
      ].map((name) => `model.layers.0.${name}.bias`),
    );
  });

  test("names its layer class for wrap policies and its longest sequence", () => {
    const model = family.create(tiny);
    expect(model.blockClasses).toEqual(["LlamaDecoderLayer"]);
    const classes = new Set([...model.module.modules()].map((module) => module.constructor.name));
    for (const name of ["LlamaDecoderLayer", "LlamaAttention", "LlamaMLP", "LlamaRMSNorm", "LlamaModel"]) {
      expect(classes).toContain(name);
    }
    expect([model.vocabSize, model.contextLength]).toEqual([11, 8]);
    expect(family.create(model.config).config).toEqual(model.config);
  });

  test("presets have as many parameters as the models that they are named after", () => {
    const published: Record<string, number> = {
      "tinyllama-1.1b": 1_100_048_384,
      "llama-2-7b": 6_738_415_616,
      "llama-3.2-1b": 1_235_814_400,
      "llama-3.1-8b": 8_030_261_248,
    };
    for (const [name, preset] of Object.entries(family.presets)) {
      const count = family
        .create(preset)
        .module.parameters()
        .reduce((sum, { numel }) => sum + numel, 0);
      expect(count, name).toBe(published[name] ?? count);
    }
    expect(Object.keys(family.presets)).toEqual(expect.arrayContaining(Object.keys(published)));
  });

  test("shared key heads compute what copies of them do, and gather the gradients of all that share them", async () => {
    await withDevice(async (device) => {
      const build = (keyHeads: number) =>
        new LlamaForCausalLM(
          parseLlamaConfig({ ...tiny, num_hidden_layers: 1, num_key_value_heads: keyHeads }),
        );
      const shared = await build(2).to(device);
      const copied = build(4);
      const values = new Map<string, Float32Array>();
      for (const [name, parameter] of shared.namedParameters())
        values.set(name, (await parameter.data()) as Float32Array);
      for (const [name, parameter] of copied.namedParameters()) {
        const own = values.get(name)!;
        const perHead = own.length / 2;
        parameter.initializer = ({ out }) => {
          if (out.length === own.length) out.set(own as never);
          else
            for (let head = 0; head < 4; head++) {
              const from = Math.floor(head / 2) * perHead;
              out.set(own.subarray(from, from + perHead) as never, head * perHead);
            }
        };
      }
      await copied.to(device);
      const losses: number[] = [];
      for (const model of [shared, copied]) {
        await device.scope(async () => {
          const ids = device.tensor(
            Int32Array.from({ length: 16 }, (_, i) => (i * 5) % 11),
            { shape: [2, 8] },
          );
          const loss = await model.call(ids, ids);
          await loss.backward();
          losses.push(await loss.item());
        });
      }
      expect(losses[0]).toBeCloseTo(losses[1]!, 6);
      const gradient = async (model: LlamaForCausalLM) =>
        (await model.model.layers[0]!.self_attn.k_proj.weight.grad!.data()) as Float32Array;
      const [own, each] = [await gradient(shared), await gradient(copied)];
      for (let head = 0; head < 2; head++) {
        for (let i = 0; i < own.length / 2; i++) {
          const sum = each[head * own.length + i]! + each[(head + 0.5) * own.length + i]!;
          expect(own[(head * own.length) / 2 + i]!).toBeCloseTo(sum, 5);
        }
      }
    });
  });

  test("computes attention with dropout as without it when nothing is dropped", async () => {
    await withDevice(async (device) => {
      const results: number[] = [];
      // So rare that none of the few hundred numbers drawn here is below it; the path is the unfused one all the same.
      for (const attention_dropout of [0, 1e-9]) {
        const model = await new LlamaForCausalLM(parseLlamaConfig({ ...tiny, attention_dropout })).to(device);
        await device.scope(async () => {
          const ids = device.tensor(
            Int32Array.from({ length: 12 }, (_, i) => (i * 5) % 11),
            { shape: [2, 6] },
          );
          const loss = await model.call(ids, ids);
          await loss.backward();
          results.push(await loss.item());
        });
        const { k_proj } = model.model.layers[0]!.self_attn;
        const gradient = (await k_proj.weight.grad!.data()) as Float32Array;
        results.push(gradient.reduce((sum, value) => sum + Math.abs(value), 0));
      }
      expect(results[2]).toBeCloseTo(results[0]!, 5);
      expect(results[3]).toBeCloseTo(results[1]!, 4);
    });
  });

  test("takes heads whose depth the width does not say, and gives every parameter a gradient", async () => {
    await withDevice(async (device) => {
      const config = parseLlamaConfig({ ...tiny, head_dim: 6, attention_bias: true, mlp_bias: true });
      const model = await new LlamaForCausalLM(config).to(device);
      expect(model.model.layers[0]!.self_attn.q_proj.weight.shape).toEqual([24, 8]);
      await device.scope(async () => {
        const ids = device.tensor(Int32Array.of(1, 2, 3, 4), { shape: [1, 4] });
        await (await model.call(ids, ids)).backward();
      });
      for (const [name, parameter] of model.namedParameters()) {
        const gradient = (await parameter.grad?.data()) as Float32Array | undefined;
        expect(gradient?.every(Number.isFinite), name).toBe(true);
      }
    });
  });

  test("begins with Hugging Face's initial values", async () => {
    await withDevice(async (device) => {
      const wide = { ...tiny, hidden_size: 64, attention_bias: true, initializer_range: 0.5 };
      const model = await new LlamaForCausalLM(parseLlamaConfig(wide)).to(device);
      const { q_proj } = model.model.layers[0]!.self_attn;
      const weights = (await q_proj.weight.data()) as Float32Array;
      const deviation = Math.sqrt(weights.reduce((sum, w) => sum + w * w, 0) / weights.length);
      expect(deviation).toBeCloseTo(0.5, 1);
      expect(new Set((await q_proj.bias!.data()) as Float32Array)).toEqual(new Set([0]));
      expect(new Set((await model.model.norm.weight.data()) as Float32Array)).toEqual(new Set([1]));
    });
  });

  test("refuses sequences that are longer than its positions", async () => {
    await withDevice(async (device) => {
      const model = await new LlamaForCausalLM(parseLlamaConfig(tiny)).to(device);
      const ids = device.tensor(new Int32Array(9), { shape: [1, 9] });
      await expect(model.call(ids)).rejects.toThrow(ShapeError);
    });
  });

  test("lists every parameter that a file lacks or has in another shape", async () => {
    const weights = await safetensors.open(fixture.file("model/model.safetensors"));
    const other = { ...config, num_hidden_layers: 3, intermediate_size: 100 };
    expect(() => family.create(other, weights)).toThrow(CheckpointError);
    expect(() => family.create(other, weights)).toThrow(
      /"model\.layers\.0\.mlp\.gate_proj\.weight" is float32 \[172, 64\].*"model\.layers\.2/s,
    );
    await weights.close();
  });

  test("refuses configs that it cannot honour, naming the field", () => {
    const cases: readonly (readonly [Record<string, unknown>, RegExp])[] = [
      [{ num_key_value_heads: 3 }, /"num_key_value_heads" is 3.*"num_attention_heads", which is 32/],
      [{ hidden_size: 100 }, /"num_attention_heads" is 32.*"hidden_size", which is 100/],
      [{ head_dim: 7 }, /"head_dim" is 7/],
      [{ hidden_act: "swish" }, /"hidden_act" is "swish"/],
      [{ num_hidden_layers: -1 }, /"num_hidden_layers"/],
      [{ pretraining_tp: 2 }, /"pretraining_tp" is 2/],
      [{ model_type: "mistral" }, /"model_type"/],
      [{ rope_scaling: { type: "yarn", factor: 2 } }, /"rope_scaling\.rope_type" is "yarn"/],
      [{ rope_scaling: { type: "linear" } }, /"rope_scaling\.factor" is undefined/],
      [{ rope_parameters: { rope_type: "linear", factor: 0.5 } }, /"rope_parameters\.factor" is 0\.5/],
      [{ rope_parameters: [] }, /"rope_parameters" is \[\]/],
      [
        { rope_parameters: { partial_rotary_factor: 0.5 } },
        /"rope_parameters\.partial_rotary_factor" is 0\.5/,
      ],
      [{ rope_theta: -1 }, /rope_theta" is -1/],
    ];
    for (const [given, message] of cases) {
      expect(() => parseLlamaConfig(given)).toThrow(ConfigError);
      expect(() => parseLlamaConfig(given)).toThrow(message);
    }
    expect(() => parseLlamaConfig("llama")).toThrow(ConfigError);
  });
});

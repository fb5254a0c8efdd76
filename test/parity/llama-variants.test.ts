/** Small Llamas, one for each option of their config, against transformers: logits, loss and every gradient. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BACKEND, FORMAT } from "../../core/contracts/plugin.ts";
import { MODEL } from "../../core/runtime/model-family.ts";
import { Device } from "../../core/tensor/device.ts";
import { registry } from "../../mod.ts";
import { testOnGpu } from "../backends/webgpu/gpu.ts";
import { fixture } from "../support/command.ts";

const safetensors = registry.get(FORMAT, "safetensors");
const folder = fixture("llama-variants");
const variants = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());

/** Fails unless the model of a folder computes what transformers did. */
async function reproduce(path: string, backendName: string): Promise<void> {
  const config: unknown = JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
  const [weights, expected] = [
    await safetensors.open(path),
    await safetensors.open(join(path, "expected.safetensors")),
  ];
  const backend = await registry.get(BACKEND, backendName).create({});
  try {
    const device = new Device(backend);
    const { module } = registry.get(MODEL, "llama").create(config, weights);
    await module.to(device);
    const close = async (found: ArrayLike<number>, name: string): Promise<void> => {
      const wanted = (await expected.read(name)) as Float32Array;
      expect(found.length, name).toBe(wanted.length);
      const size = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const worst = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i]!)), 0);
      expect(worst / size, name).toBeLessThan(1e-5);
    };
    const [ids, targets] = await Promise.all(
      ["ids", "targets"].map(async (name) => {
        const { shape } = expected.info(name);
        return device.tensor((await expected.read(name)) as BigInt64Array, { shape });
      }),
    );
    await device.scope(async () => close((await (await module.call(ids!)).data()) as Float32Array, "logits"));
    await device.scope(async () => {
      const loss = await module.call(ids!, targets);
      await close([await loss.item()], "loss");
      await loss.backward();
    });
    const parameters = [...module.namedParameters()];
    expect(parameters.length).toBe(expected.names.filter((name) => name.startsWith("gradient.")).length);
    for (const [name, parameter] of parameters) {
      await close((await parameter.grad!.data()) as Float32Array, `gradient.${name}`);
    }
  } finally {
    await backend.dispose();
    await weights.close();
    await expected.close();
  }
}

test("there are fixtures", () => expect(variants.length).toBeGreaterThan(4));
for (const { name } of variants) {
  test(`${name} equals transformers`, () => reproduce(join(folder, name), "cpu"));
}
for (const name of ["linear-rope-biases", "wide-heads-gelu"]) {
  testOnGpu(`${name} equals transformers on a GPU`, () => reproduce(join(folder, name), "webgpu"), 60_000);
}

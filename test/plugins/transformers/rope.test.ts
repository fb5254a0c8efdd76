import { describe, expect, test } from "bun:test";
import { ropeFrequencies } from "../../../plugins/transformers/llama/rope.ts";
import { parseLlamaConfig } from "../../../plugins/transformers/mod.ts";

const llama3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

const frequencies = (config: Record<string, unknown>, dim = 128): Float32Array =>
  ropeFrequencies(dim, parseLlamaConfig(config).rope_parameters);

describe("rope", () => {
  test("frequencies are theta to the minus 2 i / dim", () => {
    const found = frequencies({ rope_theta: 500_000 });
    expect(found.length).toBe(64);
    for (const [i, value] of found.entries()) {
      expect(Math.abs(value * 500_000 ** ((2 * i) / 128) - 1)).toBeLessThan(1e-6);
    }
    expect(frequencies({})[1]!).toBeCloseTo(10_000 ** (-2 / 128), 6);
  });

  test("linear scaling divides every frequency", () => {
    const plain = frequencies({});
    const scaled = frequencies({ rope_scaling: { type: "linear", factor: 4 } });
    expect(scaled).toEqual(plain.map((value) => value / 4));
  });

  test("llama3 scaling follows transformers, by wavelengths", () => {
    const plain = frequencies({ rope_theta: 500_000 });
    const scaled = frequencies({ rope_theta: 500_000, rope_scaling: llama3 });
    let [kept, stretched, between] = [0, 0, 0];
    for (const [i, frequency] of plain.entries()) {
      const wavelength = (2 * Math.PI) / frequency;
      let expected = frequency;
      if (wavelength > 8192 / 1) {
        expected = frequency / 8;
        stretched++;
      } else if (wavelength < 8192 / 4) kept++;
      else {
        const smooth = (8192 / wavelength - 1) / (4 - 1);
        expected = ((1 - smooth) * frequency) / 8 + smooth * frequency;
        between++;
      }
      expect(Math.abs(scaled[i]! / expected - 1)).toBeLessThan(1e-6);
    }
    expect(Math.min(kept, stretched, between)).toBeGreaterThan(0);
  });

  test("both spellings of the config, before transformers 5 and since, give the same", () => {
    const since = parseLlamaConfig({ rope_parameters: { ...llama3, rope_theta: 500_000 } });
    const before = parseLlamaConfig({ rope_theta: 500_000, rope_scaling: llama3 });
    const { rope_type, ...rest } = llama3;
    const long = parseLlamaConfig({ rope_theta: 500_000, rope_scaling: { type: rope_type, ...rest } });
    expect(before.rope_parameters).toEqual(since.rope_parameters);
    expect(ropeFrequencies(8, long.rope_parameters)).toEqual(ropeFrequencies(8, since.rope_parameters));
    expect(parseLlamaConfig({ rope_scaling: null }).rope_parameters).toEqual(
      parseLlamaConfig({}).rope_parameters,
    );
  });
});

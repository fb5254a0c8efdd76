/**
 * The frequencies of Llama's rotary positions, as transformers' `modeling_rope_utils.py` scales them.
 *
 * @module
 */
import * as v from "valibot";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { rotaryFrequencies } from "../../../core/nn/mod.ts";

const positive = v.pipe(v.number(), v.finite(), v.gtValue(0));
const atLeastOne = v.pipe(v.number(), v.finite(), v.minValue(1));
/** What every kind has. Heads are rotated whole. */
const common = {
  rope_theta: v.optional(positive, 10_000),
  partial_rotary_factor: v.optional(v.literal(1)),
};

/** How positions turn into angles. */
export type RopeParameters =
  | { readonly rope_type: "default"; readonly rope_theta: number }
  | { readonly rope_type: "linear"; readonly rope_theta: number; readonly factor: number }
  | {
      readonly rope_type: "llama3";
      readonly rope_theta: number;
      readonly factor: number;
      readonly low_freq_factor: number;
      readonly high_freq_factor: number;
      readonly original_max_position_embeddings: number;
    };

const schema: v.GenericSchema<unknown, RopeParameters> = v.variant("rope_type", [
  v.looseObject({ rope_type: v.literal("default"), ...common }),
  v.looseObject({ rope_type: v.literal("linear"), ...common, factor: atLeastOne }),
  v.looseObject({
    rope_type: v.literal("llama3"),
    ...common,
    factor: atLeastOne,
    low_freq_factor: positive,
    high_freq_factor: positive,
    original_max_position_embeddings: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  }),
]);

/**
 * The parameters that a config gives: in `rope_parameters`, or in `rope_theta` and `rope_scaling`, as before version 5.
 *
 * @throws ConfigError for a kind of scaling that is not supported, or a value out of range.
 */
export function ropeOf(config: Readonly<Record<string, unknown>>): RopeParameters {
  const field = config.rope_parameters == null ? "rope_scaling" : "rope_parameters";
  const given = config[field] ?? {};
  if (typeof given !== "object" || Array.isArray(given)) {
    throw new ConfigError(
      `Llama config failed: "${field}" is ${JSON.stringify(given)}, allowed is an object`,
    );
  }
  const values = given as Readonly<Record<string, unknown>>;
  const outer = config.rope_theta == null ? {} : { rope_theta: config.rope_theta };
  const result = v.safeParse(schema, {
    ...outer,
    ...values,
    rope_type: values.rope_type ?? values.type ?? "default",
  });
  if (!result.success) {
    const issue = result.issues[0];
    throw new ConfigError(
      `Llama config failed: "${field}.${v.getDotPath(issue)}" is ${issue.received}, allowed is ${issue.expected}`,
    );
  }
  const rope = result.output;
  if (rope.rope_type === "llama3" && rope.low_freq_factor >= rope.high_freq_factor) {
    throw new ConfigError(
      `Llama config failed: "${field}.low_freq_factor" is ${rope.low_freq_factor}, it must be below "high_freq_factor", which is ${rope.high_freq_factor}`,
    );
  }
  return rope;
}

/** Angle from one place to the next for each pair of a head: `headDim / 2` values. */
export function ropeFrequencies(headDim: number, rope: RopeParameters): Float32Array {
  const plain = rotaryFrequencies(headDim, rope.rope_theta);
  switch (rope.rope_type) {
    case "default":
      return plain;
    case "linear":
      return plain.map((frequency) => frequency / rope.factor);
    case "llama3":
      return plain.map((frequency) => {
        const { factor, low_freq_factor: low, high_freq_factor: high } = rope;
        // Turns within the length that the model was first trained on. Few: the frequency is stretched; many: it stays.
        const turns = (rope.original_max_position_embeddings * frequency) / (2 * Math.PI);
        const kept = Math.min(Math.max((turns - low) / (high - low), 0), 1);
        return (1 - kept) * (frequency / factor) + kept * frequency;
      });
  }
}

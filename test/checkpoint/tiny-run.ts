/**
 * Training runs of a tiny model by the command line, whose legs differ in how they are sharded.
 *
 * @module
 */
import { expect } from "bun:test";
import { join } from "node:path";
import { safetensorsFormat } from "../../checkpoint/formats/safetensors/format.ts";
import { readLog, run } from "../support/command.ts";
import { generator } from "./layouts.ts";

const WITHOUT_DROPOUT = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 };
const MODEL = { vocab_size: 96, n_positions: 16, n_embd: 24, n_layer: 1, n_head: 3, ...WITHOUT_DROPOUT };

/** Steps that there are tokens for. */
export const STEPS = 8;

/** How a leg is sharded. */
export interface Leg {
  readonly version: number;
  readonly world: number;
  /** Further options. */
  readonly options?: readonly string[];
}

/** A leg in a test's name. */
export function describeLeg({ version, world, options = [] }: Leg): string {
  const named = options.map((option) => option.replace(/^--(fsdp-)?/, ""));
  return [`FSDP${version} on ${world}`, ...named].join(" ");
}

/** Random tokens, whose batch every world up to 4 divides, so that each step has the same rows whoever trains it. */
export async function writeTokens(folder: string): Promise<void> {
  const shape = [STEPS, 12, 17] as const;
  const random = generator(11);
  const length = shape.reduce((product, extent) => product * extent, 1);
  const tokens = BigInt64Array.from({ length }, () => BigInt(random(MODEL.vocab_size)));
  const named = { name: "tokens", dtype: "int64", shape, read: async () => tokens } as const;
  await safetensorsFormat.write(join(folder, "tokens.safetensors"), [named], {});
}

/** Trains to step `to`; gives the losses of the steps that it did. */
export async function train(
  folder: string,
  leg: Leg,
  to: number,
  name: string,
  ...args: string[]
): Promise<number[]> {
  const log = join(folder, `${name}.jsonl`);
  const options = [
    ...["--config-model", JSON.stringify(MODEL), "--tokens", join(folder, "tokens.safetensors")],
    ...["--fsdp-version", String(leg.version), "--world-size", String(leg.world), "--clip", "1"],
    ...["--lr", "0.0005", "--steps", String(to), "--log", log, ...(leg.options ?? []), ...args],
  ];
  const { code, stderr } = await run(["train", ...options]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return (await readLog(log)).map((line) => line.loss!);
}

/** Runs legs of two steps, each but the first from what the one before saved at `place`; gives all losses. */
export async function journey(folder: string, legs: readonly Leg[], place: string): Promise<number[]> {
  const losses: number[] = [];
  for (const [i, leg] of legs.entries()) {
    const resume = i === 0 ? [] : ["--resume", "latest"];
    losses.push(...(await train(folder, leg, 2 * (i + 1), `leg-${i}`, "--save", place, ...resume)));
  }
  return losses;
}

/** Losses of one run within 1e-5 of another's. */
export function expectSameLosses(losses: readonly number[], wanted: readonly number[]): void {
  expect(losses.length).toBe(wanted.length);
  for (const [i, loss] of losses.entries()) {
    expect(Math.abs(loss - wanted[i]!) / wanted[i]!).toBeLessThan(1e-5);
  }
}

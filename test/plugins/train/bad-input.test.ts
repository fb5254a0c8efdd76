import { describe, expect, test } from "bun:test";
import { cpSync, existsSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fixture, inFolder, run } from "../../support/command.ts";
import { GPT2_TINY_OPTIONS } from "../../support/gpt2-tiny.ts";

const tiny = [...GPT2_TINY_OPTIONS];
const scratch = ["--config-model", "gpt2-bytes", "--data", fixture("gpt2-tiny/case.json")];

/** Arguments of `train`, and what its one line of error must contain. `folder` is fresh and must stay empty but for what `prepare` makes. */
interface Case {
  readonly name: string;
  readonly args: (folder: string) => readonly string[];
  readonly says: readonly (string | RegExp)[];
  readonly prepare?: (folder: string) => void;
}

const cases: readonly Case[] = [
  {
    name: "an unknown option",
    args: () => [...tiny, "--wrold-size", "2"],
    says: ["--wrold-size", "--world-size"],
  },
  {
    name: "an option out of range",
    args: () => [...tiny, "--world-size", "0"],
    says: ["--world-size", '"0"', "1"],
  },
  { name: "an option that is no number", args: () => [...tiny, "--lr", "fast"], says: ["--lr", '"fast"'] },
  { name: "an unknown backend", args: () => [...tiny, "--backend", "tpu"], says: ["tpu", "cpu"] },
  { name: "an unknown collective", args: () => [...tiny, "--collective", "nccl"], says: ["nccl", "threads"] },
  {
    name: "an unknown backend setting",
    args: () => [...tiny, "--backend-options", "matmul=abacus"],
    says: ["abacus", "blas"],
  },
  {
    name: "a WebGPU option without that backend",
    args: () => [...tiny, "--webgpu-checks"],
    says: ["--webgpu-checks", "--backend webgpu"],
  },
  {
    name: "no data",
    args: () => ["--config-model", "gpt2-bytes", "--steps", "1"],
    says: ["--data", "--tokens"],
  },
  { name: "no steps", args: () => scratch, says: ["--steps"] },
  {
    name: "a missing model directory",
    args: (f) => ["--model", join(f, "none"), ...tiny.slice(2)],
    says: ["--model", "ENOENT"],
  },
  {
    name: "a missing tokens file",
    args: (f) => ["--model", fixture("gpt2-tiny/model"), "--tokens", join(f, "none")],
    says: [/none/],
  },
  {
    name: "a missing text path",
    args: (f) => ["--config-model", "gpt2-bytes", "--steps", "1", "--data", join(f, "none")],
    says: ["--data", "none"],
  },
  {
    name: "an unknown preset",
    args: () => ["--config-model", "gpt9", ...scratch.slice(2)],
    says: ["--config-model", "gpt9", "gpt2-bytes"],
  },
  {
    name: "JSON that is none",
    args: () => ["--config-model", "{n_head: 3}", ...scratch.slice(2)],
    says: ["--config-model", "JSON"],
  },
  {
    name: "more heads than width",
    args: () => ["--config-model", '{"n_embd": 4, "n_head": 8, "vocab_size": 256}', ...scratch.slice(2)],
    says: ["n_head", "8", "n_embd", "4"],
  },
  {
    name: "a batch that the ranks do not divide",
    args: () => [...tiny, "--world-size", "3"],
    says: ["--world-size", "3", "4"],
  },
  { name: "more steps than tokens", args: () => [...tiny, "--steps", "21"], says: ["--steps", "21", "20"] },
  {
    name: "sequences longer than the model's",
    args: () => [...scratch, "--steps", "1", "--seq-len", "500"],
    says: ["--seq-len", "500", "128"],
  },
  {
    name: "an unknown FSDP version",
    args: () => [...tiny, "--fsdp-version", "3"],
    says: ["--fsdp-version", "3"],
  },
  {
    name: "a wrap class that the model lacks",
    args: () => [...tiny, "--fsdp-transformer-layer-cls-to-wrap", "T5Block"],
    says: ["T5Block", "GPT2Block"],
  },
  {
    name: "a resume without a checkpoint",
    args: (f) => [...tiny, "--resume", join(f, "run")],
    says: ["--resume", "run"],
  },
  {
    name: "an export into a missing folder",
    args: (f) => [...tiny, "--export", join(f, "no", "w.safetensors")],
    says: ["--export"],
  },
  {
    name: "a log into a missing folder",
    args: (f) => [...tiny, "--log", join(f, "no", "log.jsonl")],
    says: ["--log"],
  },
  {
    name: "truncated weights",
    prepare: (folder) => {
      cpSync(fixture("gpt2-tiny/model"), join(folder, "model"), { recursive: true });
      truncateSync(join(folder, "model/model.safetensors"), 100_000);
    },
    args: (f) => ["--model", join(f, "model"), ...tiny.slice(2)],
    says: ["model.safetensors"],
  },
  {
    name: "weights that are no safetensors file",
    prepare: (folder) => {
      cpSync(fixture("gpt2-tiny/model"), join(folder, "model"), { recursive: true });
      writeFileSync(join(folder, "model/model.safetensors"), "PK\u0003\u0004 not this");
    },
    args: (f) => ["--model", join(f, "model"), ...tiny.slice(2)],
    says: ["model.safetensors"],
  },
];

describe("train refuses, in one line that names it and with exit code 1,", () => {
  for (const { name, args, says, prepare } of cases) {
    test(name, async () => {
      await inFolder(async (folder) => {
        prepare?.(folder);
        const before = readdirSync(folder);
        const { code, stdout, stderr } = await run([
          "train",
          ...args(folder),
          "--save",
          join(folder, "save"),
        ]);
        expect(stderr.trimEnd().split("\n")).toHaveLength(1);
        for (const part of says) {
          if (typeof part === "string") expect(stderr).toContain(part);
          else expect(stderr).toMatch(part);
        }
        expect(stdout).toBe("");
        expect(code).toBe(1);
        expect(readdirSync(folder)).toEqual(before);
        expect(existsSync(join(folder, "save"))).toBe(false);
      });
    }, 30_000);
  }
});

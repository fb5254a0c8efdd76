/** PyTorch's reference runs of tiny models, and the options that repeat them. */
import { readFileSync } from "node:fs";
import { fixture } from "./command.ts";

/** Losses and gradient norms of a reference run. */
export interface Reference {
  readonly losses: readonly number[];
  readonly grad_norms: readonly number[];
}

/** A model of test/fixtures. */
export interface TinyModel {
  /** A file of it. */
  file(name: string): string;
  /** A JSON file of it. */
  json<T>(name: string): T;
  /** Options of `train` that repeat the reference run. */
  readonly options: readonly string[];
}

/** The fixture of a name. */
export function tinyModel(name: "gpt2-tiny" | "llama-tiny"): TinyModel {
  const file = (path: string): string => fixture(`${name}/${path}`);
  const json = <T>(path: string): T => JSON.parse(readFileSync(file(path), "utf8")) as T;
  const settings = json<{ lr: number; wd: number; betas: [number, number]; clip: number }>("case.json");
  const options = {
    "--model": file("model"),
    "--tokens": file("tokens.safetensors"),
    "--lr": settings.lr,
    "--weight-decay": settings.wd,
    "--beta1": settings.betas[0],
    "--beta2": settings.betas[1],
    "--clip": settings.clip,
  };
  return { file, json, options: Object.entries(options).flat().map(String) };
}

/**
 * The one file that asks which runtime this is.
 *
 * @module
 */
import { availableParallelism } from "node:os";
import process from "node:process";

/** The JavaScript runtime and its version. */
export interface Runtime {
  readonly name: "bun" | "deno" | "node";
  /** For example `1.4.5`. */
  readonly version: string;
}

/** What runs this code. */
export const RUNTIME: Runtime = Object.freeze(detect());

/** One line for people, for example `Bun 1.4.5`. */
export function runtimeDescription(): string {
  const names = { bun: "Bun", deno: "Deno", node: "Node" };
  return `${names[RUNTIME.name]} ${RUNTIME.version}`;
}

/** Cores that this process may use, at least 1. */
export function cpuCount(): number {
  return Math.max(1, availableParallelism());
}

let kept = false;

/**
 * Says that this thread must not end before the process does. For native libraries that answer to a thread after it is
 * gone: Dawn on NVIDIA crashes the process when threads that used it end.
 */
export function keepThread(): void {
  kept = true;
}

/** Whether something in this thread asked to keep it. */
export function threadIsKept(): boolean {
  return kept;
}

function detect(): Runtime {
  const { bun, deno, node } = process.versions as Readonly<Record<string, string | undefined>>;
  if (bun !== undefined) return { name: "bun", version: bun };
  if (deno !== undefined) return { name: "deno", version: deno };
  return { name: "node", version: node ?? "unknown" };
}

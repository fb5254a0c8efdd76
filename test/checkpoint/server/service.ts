/**
 * Checkpoint services for tests: in this process, or `serve` in one of its own under either runtime.
 *
 * @module
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createCheckpointApp } from "../../../checkpoint/server/app.ts";
import { listen } from "../../../checkpoint/server/listen.ts";
import type { CheckpointAppOptions } from "../../../checkpoint/server/service.ts";
import { type RUNTIMES, type Started, start } from "../../support/command.ts";

/** A service that runs. */
export interface RunningService {
  readonly url: string;
  readonly directory: string;
  /** What went wrong inside, of a service in this process. */
  readonly errors: readonly unknown[];
  /** Its own process, when it has one. */
  readonly child: Started | undefined;
  close(): Promise<void>;
}

/** A folder for one test's service, and what removes it. */
export function makeFolder(): { readonly folder: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), "fsdp-service-"));
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** A service in this process, in a folder of its own unless one is given. */
export async function startService(options: Partial<CheckpointAppOptions> = {}): Promise<RunningService> {
  const { folder, remove } = makeFolder();
  const directory = options.directory ?? join(folder, "data");
  const errors: unknown[] = [];
  const app = createCheckpointApp({ onError: (error) => void errors.push(error), ...options, directory });
  const listener = await listen((request) => app.fetch(request), { hostname: "127.0.0.1", port: 0 });
  return {
    url: listener.url,
    directory,
    errors,
    child: undefined,
    async close(): Promise<void> {
      await listener.close();
      remove();
    },
  };
}

/** `serve` in a process of its own. */
export async function spawnService(
  runtime: keyof typeof RUNTIMES,
  directory: string,
  options: readonly string[] = [],
): Promise<RunningService> {
  const child = start(["serve", "--dir", directory, "--port", "0", "--json", ...options], runtime);
  const reader = child.stdout.getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`serve ended: ${await new Response(child.stderr).text()}`);
    text += new TextDecoder().decode(value);
  }
  reader.releaseLock();
  const { url } = JSON.parse(text) as { readonly url: string };
  return {
    url,
    directory,
    errors: [],
    child,
    async close(): Promise<void> {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

/** Services on which the suites run: their names, and what starts a fresh one. */
export const SERVICES: readonly (readonly [string, () => Promise<RunningService>])[] = [
  ["a service in this process", () => startService()],
  ["serve under Deno", () => spawnFresh("deno")],
];

/** `serve` in a process and a folder of its own. */
async function spawnFresh(runtime: keyof typeof RUNTIMES): Promise<RunningService> {
  const { folder, remove } = makeFolder();
  const service = await spawnService(runtime, join(folder, "data"));
  return {
    ...service,
    async close(): Promise<void> {
      await service.close();
      remove();
    },
  };
}

/** Resident memory of a process in bytes. Linux only. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await Bun.file(`/proc/${pid}/status`).text();
  return Number(/VmRSS:\s+([0-9]+) kB/.exec(status)?.[1]) * 1024;
}

/**
 * The service for a process that is its own only client, with its ranks: no tokens, a free port of the loopback interface.
 *
 * @module
 */
import type { CheckpointService } from "../../core/runtime/checkpoint-service.ts";
import { exemptLoopback } from "../stores/http/loopback.ts";
import { createCheckpointApp } from "./app.ts";
import { listen } from "./listen.ts";

/** Starts a service over a directory. @throws ConfigError when it cannot listen. */
export async function startEmbeddedService(directory: string): Promise<CheckpointService> {
  const app = createCheckpointApp({ directory });
  const listener = await listen((request) => app.fetch(request), { hostname: "127.0.0.1", port: 0 });
  // Here too: Deno's threads take it from the process as it is when they begin.
  exemptLoopback(listener.url);
  return listener;
}

/**
 * Serving requests with what the runtime has: `Bun.serve` or `Deno.serve`. Both stream bodies either way and hold back a
 * sender that is too fast; their own limits on size and silence give way to the service's.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";

/** A server that listens. */
export interface Listener {
  /** Where, for example `http://127.0.0.1:8787`. */
  readonly url: string;
  /** Takes no more requests, and ends those under way. */
  close(): Promise<void>;
}

/** Answers a request. */
export type FetchHandler = (request: Request) => Response | Promise<Response>;

/** Where to listen. */
export interface ListenOptions {
  readonly hostname: string;
  /** 0 takes a free one. */
  readonly port: number;
}

interface BunRuntime {
  serve(options: {
    readonly hostname: string;
    readonly port: number;
    readonly maxRequestBodySize: number;
    readonly idleTimeout: number;
    readonly development: boolean;
    readonly reusePort: boolean;
    readonly fetch: FetchHandler;
  }): { readonly port: number; stop(closeActiveConnections: boolean): Promise<void> };
}

interface DenoRuntime {
  serve(
    options: ListenOptions & { readonly onListen: () => void; readonly signal: AbortSignal },
    handler: FetchHandler,
  ): { readonly addr: { readonly port: number }; readonly finished: Promise<void> };
}

/** Seconds without a byte after which Bun cuts a connection: its longest. Event streams and uploads have their own. */
const IDLE_SECONDS = 255;

/** @throws ConfigError when the address cannot be used, or the runtime has no server. */
export async function listen(fetch: FetchHandler, { hostname, port }: ListenOptions): Promise<Listener> {
  const { Bun: bun, Deno: deno } = globalThis as { readonly Bun?: BunRuntime; readonly Deno?: DenoRuntime };
  const host = hostname.includes(":") && !hostname.startsWith("[") ? `[${hostname}]` : hostname;
  try {
    if (deno !== undefined) {
      const stop = new AbortController();
      const server = deno.serve({ hostname, port, onListen: () => undefined, signal: stop.signal }, fetch);
      return {
        url: `http://${host}:${server.addr.port}`,
        async close(): Promise<void> {
          stop.abort();
          await server.finished;
        },
      };
    }
    if (bun !== undefined) {
      const server = bun.serve({
        ...{ hostname, port, fetch, idleTimeout: IDLE_SECONDS, development: false },
        maxRequestBodySize: Number.MAX_SAFE_INTEGER,
        // Outside development Bun shares a taken port, and with it two services a directory.
        reusePort: false,
      });
      return { url: `http://${host}:${server.port}`, close: () => server.stop(true) };
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ConfigError(`cannot listen on ${host}:${port}: ${reason}`, { cause: error });
  }
  throw new ConfigError("cannot serve: this runtime has no HTTP server that is known here, use Bun or Deno");
}

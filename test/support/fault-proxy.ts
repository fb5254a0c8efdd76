/**
 * A proxy that does to requests and answers what networks do: it loses, cuts, delays, doubles and reorders them.
 *
 * @module
 */
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** What may happen to a request. */
export const FAULTS = [
  /** It is passed on, and its answer back. */
  "none",
  /** Both are, a little later: what was sent after it may overtake it. */
  "delay",
  /** It never arrives. */
  "lose",
  /** Half of its body arrives, then the connection is cut on both sides. */
  "cut",
  /** It arrives, its answer does not. */
  "lose-answer",
  /** It arrives, and half of its answer comes back before the connection is cut. */
  "cut-answer",
  /** It arrives twice at once; the first answer comes back. */
  "double",
  /** It seems lost, and arrives later, after the client has gone on. */
  "late",
] as const;

/** What happens to a request. */
export type Fault = (typeof FAULTS)[number];

/** A proxy that runs. */
export interface FaultProxy {
  readonly url: string;
  /** How often each fault was met. */
  readonly counts: ReadonlyMap<Fault, number>;
  /** Where requests go from now on: `http://HOST:PORT`. */
  target: string;
  close(): Promise<void>;
}

/** How a proxy decides. */
export interface FaultProxyOptions {
  readonly target: string;
  /** What happens to the next request. */
  readonly fault: () => Fault;
  /** How long a delayed or late one is held, in milliseconds. */
  readonly hold: () => number;
}

interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: Buffer;
}

/** Starts a proxy on a free port of the loopback interface. */
export async function startFaultProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const counts = new Map<Fault, number>();
  /** What goes on although its client was told nothing. */
  const pending = new Set<Promise<unknown>>();

  const handle = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const body = await collect(incoming);
    const fault = options.fault();
    counts.set(fault, (counts.get(fault) ?? 0) + 1);
    const cutOff = (): void => void outgoing.socket?.destroy();
    const pass = (): Promise<Answer> => forward(proxy.target, incoming, body, body.length);
    switch (fault) {
      case "lose":
        return cutOff();
      case "cut":
        await forward(proxy.target, incoming, body, Math.floor(body.length / 2)).catch(() => undefined);
        return cutOff();
      case "lose-answer":
        await pass();
        return cutOff();
      case "late": {
        const task = sleep(options.hold()).then(pass, () => undefined);
        const ended = task.catch(() => undefined).finally(() => pending.delete(ended));
        pending.add(ended);
        return cutOff();
      }
      case "cut-answer": {
        const answer = await pass();
        outgoing.writeHead(answer.status, {
          ...answer.headers,
          "content-length": String(answer.body.length + 1),
        });
        outgoing.write(answer.body.subarray(0, Math.floor(answer.body.length / 2)), cutOff);
        return;
      }
      case "double": {
        const [first] = await Promise.all([pass(), pass().catch(() => undefined)]);
        return give(outgoing, first);
      }
      case "delay":
        await sleep(options.hold());
        return give(outgoing, await pass());
      case "none":
        return give(outgoing, await pass());
    }
  };

  const server = createServer((incoming, outgoing) => {
    // What cannot be passed on, as while the service is away, looks like a cut.
    handle(incoming, outgoing).catch(() => outgoing.socket?.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const proxy: FaultProxy = {
    url: `http://127.0.0.1:${port}`,
    counts,
    target: options.target,
    async close(): Promise<void> {
      await Promise.all(pending);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}

async function collect(stream: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

/** Sends a request on, or the first `sent` bytes of its body and then nothing. */
function forward(target: string, incoming: IncomingMessage, body: Buffer, sent: number): Promise<Answer> {
  const { hostname, port } = new URL(target);
  const { host: _, connection: __, ...kept } = incoming.headers;
  const headers = { ...kept, host: `${hostname}:${port}`, connection: "close" };
  return new Promise((resolve, reject) => {
    const { method = "GET", url: path = "/" } = incoming;
    const outgoing = request({ hostname, port, method, path, headers }, (response) => {
      collect(response).then((bytes) => {
        resolve({ status: response.statusCode ?? 502, headers: response.headers, body: bytes });
      }, reject);
    });
    outgoing.on("error", reject);
    if (sent === body.length) outgoing.end(body);
    else {
      outgoing.write(body.subarray(0, sent), () => {
        outgoing.destroy();
        reject(new Error("cut on purpose"));
      });
    }
  });
}

function give(outgoing: ServerResponse, { status, headers, body }: Answer): void {
  const { "transfer-encoding": _, connection: __, ...kept } = headers;
  outgoing.writeHead(status, kept);
  outgoing.end(body);
}

/**
 * Server-sent events: a comment at once and every few seconds, so that neither side takes a quiet stream for a dead one;
 * a subscriber that does not read is let go and may come back with `Last-Event-ID`.
 *
 * @module
 */
import type { Events, RunEvent } from "./events.ts";
import type { OpenCount } from "./open-count.ts";
import { Problem } from "./problem.ts";

const HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/event-stream",
  "cache-control": "no-store",
  // Proxies that gather answers would hold events back.
  "x-accel-buffering": "no",
};
const HEARTBEAT_MS = 4000;
/** Messages that may wait for a subscriber. */
const MOST_WAITING = 2048;

/** Answers a subscription. @throws Problem when too many are open, or `Last-Event-ID` is no number. */
export function eventStream(events: Events, request: Request, count: OpenCount): Response {
  const field = request.headers.get("last-event-id") ?? String(events.last);
  if (!/^[0-9]{1,15}$/.test(field)) throw new Problem("malformed", "last-event-id: allowed is an integer");
  if (count.open >= count.limit) {
    throw new Problem("limit", `${count.open} event streams are open, which is the most`, {
      fields: { limit: count.limit },
      headers: { "retry-after": "5" },
    });
  }
  if (request.method === "HEAD") return new Response(null, { headers: HEADERS });
  count.open++;
  let end = (): void => undefined;
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller): void {
        const encoder = new TextEncoder();
        const send = (text: string): void => {
          if ((controller.desiredSize ?? 0) <= -MOST_WAITING) {
            end();
            controller.close();
          } else controller.enqueue(encoder.encode(text));
        };
        const heartbeat = setInterval(() => send(": still here\n\n"), HEARTBEAT_MS);
        const unsubscribe = events.subscribe(Number(field), (event) => send(format(event)));
        end = () => {
          end = () => undefined;
          clearInterval(heartbeat);
          unsubscribe();
          count.open--;
        };
        send(": subscribed\n\n");
      },
      cancel: () => end(),
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { headers: HEADERS });
}

function format({ id, type, data }: RunEvent): string {
  return `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
}

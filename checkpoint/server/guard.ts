/**
 * What stands before every route: bounds on how much is asked at once, and who may ask at all.
 *
 * @module
 */
import { isLoopback } from "../stores/http/loopback.ts";
import type { ServiceLimits } from "./limits.ts";
import { Problem } from "./problem.ts";

/** @throws Problem when the URL or the headers of a request are longer than allowed. */
export function checkSize(request: Request, { headerBytes }: ServiceLimits): void {
  const fields = { limit: headerBytes };
  if (request.url.length > headerBytes) {
    throw new Problem("uri-too-long", `the URL exceeds ${headerBytes} bytes`, { fields });
  }
  let bytes = 0;
  for (const [name, value] of request.headers) bytes += name.length + value.length + 4;
  if (bytes > headerBytes) {
    throw new Problem("headers-too-large", `the headers exceed ${headerBytes} bytes`, { fields });
  }
}

/**
 * Of a service without tokens: @throws Problem unless the request means this host by name and comes from no web page. A
 * page in a browser could otherwise reach the service through the user who looks at it (DNS rebinding, forged requests).
 */
export function checkLocal(request: Request): void {
  const { hostname, origin } = new URL(request.url);
  const from = request.headers.get("origin");
  const local = isLoopback(hostname) && isLoopback(hostnameOf(request.headers.get("host")) ?? hostname);
  if (local && (from === null || from === origin)) return;
  throw new Problem("foreign-host", "without tokens the service answers to localhost only");
}

function hostnameOf(host: string | null): string | undefined {
  if (host === null) return undefined;
  return URL.parse(`http://${host}`)?.hostname ?? "";
}

/** Lets each principal make so many requests a second, with a burst after a rest (a token bucket). */
export function createRateLimit(
  { requestsPerSecond, requestBurst }: ServiceLimits,
  now: () => number,
): (principal: string) => void {
  // One entry per token, so as many as the service knows.
  const buckets = new Map<string, { left: number; at: number }>();
  return (principal) => {
    const at = now();
    const bucket = buckets.get(principal) ?? { left: requestBurst, at };
    bucket.left = Math.min(requestBurst, bucket.left + ((at - bucket.at) / 1000) * requestsPerSecond);
    bucket.at = at;
    buckets.set(principal, bucket);
    if (bucket.left < 1) {
      throw new Problem("limit", `more than ${requestsPerSecond} requests a second`, {
        fields: { limit: requestsPerSecond },
        headers: { "retry-after": "1" },
      });
    }
    bucket.left--;
  };
}

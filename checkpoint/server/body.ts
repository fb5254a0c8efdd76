/**
 * Request bodies read with bounds: in pieces, in time, and up to a limit.
 *
 * @module
 */
import { clearTimeout, setTimeout } from "node:timers";
import { Problem } from "./problem.ts";

/** Bytes that arrive. */
export interface ByteSource {
  /** The next bytes, or `undefined` at the end. Rejects when the connection was cut, or nothing came for so long. */
  read(idleSeconds: number): Promise<Uint8Array | undefined>;
  /** Makes a pending `read` reject. */
  cancel(): void;
}

/** The body of a request; `seen` is told all bytes in order. */
export function bodyOf(request: Request, seen?: (bytes: Uint8Array) => void): ByteSource {
  const reader = request.body?.getReader();
  let cancelled: Problem | undefined;
  /** Set while a read is pending. */
  let reading: { readonly since: number; readonly seconds: number } | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const cancel = (problem: Problem): void => {
    cancelled ??= problem;
    clearTimeout(timer);
    // Ends a pending read.
    reader?.cancel().catch(() => undefined);
  };
  // One timer for many reads: chunks come more quickly than timers are made.
  const watch = (): void => {
    timer = undefined;
    if (reading === undefined) return;
    const { since, seconds } = reading;
    const left = since + seconds * 1000 - performance.now();
    if (left > 0) timer = setTimeout(watch, left).unref();
    else cancel(new Problem("timeout", `nothing came for ${seconds} seconds`));
  };
  return {
    async read(idleSeconds: number): Promise<Uint8Array | undefined> {
      if (reader === undefined) return undefined;
      if (cancelled !== undefined) throw cancelled;
      reading = { since: performance.now(), seconds: idleSeconds };
      timer ??= setTimeout(watch, idleSeconds * 1000).unref();
      let chunk: { readonly value?: Uint8Array | undefined; readonly done: boolean };
      try {
        chunk = await reader.read();
      } catch (error) {
        clearTimeout(timer);
        // No failure of the service: whoever sent is gone, and nobody reads the answer.
        throw cancelled ?? new Problem("timeout", "the connection was cut", { cause: error });
      } finally {
        reading = undefined;
      }
      if (cancelled !== undefined) throw cancelled;
      const { value, done } = chunk;
      if (done || value === undefined) {
        clearTimeout(timer);
        return undefined;
      }
      seen?.(value);
      return value;
    },
    cancel: () => cancel(new Problem("not-open", "another request continues this upload")),
  };
}

/** Bounds of a body. */
export interface BodyBounds {
  readonly limit: number;
  readonly idleSeconds: number;
}

/** A whole body, which is small. @throws Problem when it is longer than the limit or stalls. */
export async function readWhole(request: Request, bounds: BodyBounds): Promise<Uint8Array> {
  const declared = Number(request.headers.get("content-length") ?? 0);
  if (declared > bounds.limit) {
    throw new Problem("too-large", `the body has ${declared} bytes, allowed are ${bounds.limit}`, {
      fields: { limit: bounds.limit },
    });
  }
  const source = bodyOf(request);
  const parts: Uint8Array[] = [];
  for (let total = 0; ; ) {
    const bytes = await source.read(bounds.idleSeconds);
    if (bytes === undefined) return new Uint8Array(Buffer.concat(parts));
    total += bytes.length;
    if (total > bounds.limit) {
      throw new Problem("too-large", `the body exceeds ${bounds.limit} bytes`, {
        fields: { limit: bounds.limit },
      });
    }
    parts.push(bytes);
  }
}

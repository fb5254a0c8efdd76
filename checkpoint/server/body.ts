/**
 * Request bodies read with bounds: in pieces, in time, and up to a limit.
 *
 * @module
 */
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
  // Not a race with one promise for all reads: that would keep every chunk until the last has come.
  let refuse = (_: unknown): void => undefined;
  const cancel = (problem: Problem): void => {
    cancelled ??= problem;
    refuse(cancelled);
    reader?.cancel().catch(() => undefined);
  };
  return {
    async read(idleSeconds: number): Promise<Uint8Array | undefined> {
      if (reader === undefined) return undefined;
      if (cancelled !== undefined) throw cancelled;
      const timer = setTimeout(
        () => cancel(new Problem("timeout", `nothing came for ${idleSeconds} seconds`)),
        idleSeconds * 1000,
      );
      try {
        const { value, done } = await new Promise<{
          readonly value?: Uint8Array | undefined;
          readonly done: boolean;
        }>((resolve, reject) => {
          refuse = reject;
          reader.read().then(resolve, (error: unknown) => {
            // No failure of the service: whoever sent is gone, and nobody reads the answer.
            reject(new Problem("timeout", "the connection was cut", { cause: error }));
          });
        });
        if (done || value === undefined) return undefined;
        seen?.(value);
        return value;
      } finally {
        clearTimeout(timer);
      }
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

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

/**
 * The bytes of a body, gathered to pieces of about `pieceBytes`. When it breaks off, what came before is yielded first.
 * A piece is valid until the one after the next is asked for, so that it can be written while more is read.
 *
 * @throws Problem when it is longer than the limit or stalls; or what `read` rejects with.
 */
export async function* readBody(
  source: ByteSource,
  { limit, idleSeconds }: BodyBounds,
  pieceBytes: number,
): AsyncGenerator<Uint8Array> {
  let piece = new Uint8Array(pieceBytes);
  let other = new Uint8Array(pieceBytes);
  let filled = 0;
  let total = 0;
  let failure: { readonly error: unknown } | undefined;
  for (;;) {
    let bytes: Uint8Array | undefined;
    try {
      bytes = await source.read(idleSeconds);
      total += bytes?.length ?? 0;
      if (total > limit)
        throw new Problem("too-large", `the body exceeds ${limit} bytes`, { fields: { limit } });
    } catch (error) {
      failure = { error };
      break;
    }
    if (bytes === undefined) break;
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(bytes.length - at, piece.length - filled);
      piece.set(bytes.subarray(at, at + count), filled);
      at += count;
      filled += count;
      if (filled === piece.length) {
        yield piece;
        [piece, other] = [other, piece];
        filled = 0;
      }
    }
  }
  if (filled > 0) yield piece.subarray(0, filled);
  if (failure !== undefined) throw failure.error;
}

/** A whole body, which is small. @throws Problem when it is longer than the limit or stalls. */
export async function readWhole(request: Request, bounds: BodyBounds): Promise<Uint8Array> {
  const declared = Number(request.headers.get("content-length") ?? 0);
  if (declared > bounds.limit) {
    throw new Problem("too-large", `the body has ${declared} bytes, allowed are ${bounds.limit}`, {
      fields: { limit: bounds.limit },
    });
  }
  const parts: Uint8Array[] = [];
  for await (const piece of readBody(bodyOf(request), bounds, 64 * 1024)) parts.push(piece.slice());
  return new Uint8Array(Buffer.concat(parts));
}

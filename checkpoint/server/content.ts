/**
 * Content with ranges and conditions (RFC 9110): one answer for everything that has a length, an entity tag and bytes,
 * whether they lie in a file or are made as they are read.
 *
 * @module
 */
import type { FileHandle } from "node:fs/promises";
import { RUNTIME } from "../../core/runtime/runtime.ts";
import { openFile, readFully } from "../stores/directory-files.ts";
import { nodeFileSystem } from "../stores/file-system.ts";
import { isUnchanged } from "./http-fields.ts";
import type { OpenCount } from "./open-count.ts";
import { freshPiece, type NewPiece, pieceRing } from "./pieces.ts";
import { Problem } from "./problem.ts";

/** Something that can be read in part. */
export interface Content {
  readonly length: number;
  /** Strong, with its quotes. */
  readonly etag: string;
  readonly type: string;
  /** Whether this URL can never have other content. */
  readonly immutable: boolean;
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes `[begin, end)`, in memory of `newPiece` or fresh one; two pieces are in use at a time. */
  read(begin: number, end: number, newPiece: NewPiece): AsyncGenerator<Uint8Array>;
}

/** Up to here an answer is made before it is begun, and so has a length and no half. */
const WHOLE_BYTES = 1024 * 1024;
/** Bytes of one piece of a stream. */
const PIECE_BYTES = 1024 * 1024;

/**
 * Answers `GET` or `HEAD` of some content: 200, 206, 304, 412 or 416. Several ranges are answered by the whole.
 *
 * `Content-Size` repeats the length of the body, as Bun sends none for streams.
 */
export async function answerContent(
  request: Request,
  content: Content,
  transfers: OpenCount,
): Promise<Response> {
  const { length, etag } = content;
  const headers = new Headers({
    ...content.headers,
    etag,
    "content-type": content.type,
    "accept-ranges": "bytes",
    "cache-control": content.immutable ? "private, max-age=31536000, immutable" : "private, no-cache",
  });
  if (isUnchanged(request, etag)) {
    headers.delete("content-type");
    return new Response(null, { status: 304, headers });
  }
  const range = chosenRange(request, length, etag);
  const { begin, end } = range ?? { begin: 0, end: length };
  if (range !== undefined) headers.set("content-range", `bytes ${begin}-${end - 1}/${length}`);
  headers.set("content-length", String(end - begin));
  headers.set("content-size", String(end - begin));
  const status = range === undefined ? 200 : 206;
  if (request.method === "HEAD") return new Response(null, { status, headers });
  const body =
    end - begin <= WHOLE_BYTES
      ? await gather(content, begin, end)
      : streamOf(content, begin, end, takeOne(transfers));
  return new Response(body, { status, headers });
}

/** The bytes of a regular file. */
export async function* fileBytes(
  path: string,
  begin: number,
  end: number,
  newPiece: NewPiece,
): AsyncGenerator<Uint8Array> {
  const { handle, length } = await openFile(nodeFileSystem, path);
  try {
    if (end > length) throw new Problem("internal", `a file has ${length} bytes, due are ${end}`);
    yield* pieces(handle, begin, end, newPiece);
  } finally {
    await handle.close();
  }
}

async function* pieces(
  handle: FileHandle,
  begin: number,
  end: number,
  newPiece: NewPiece,
): AsyncGenerator<Uint8Array> {
  for (let at = begin; at < end; ) {
    const piece = newPiece(Math.min(PIECE_BYTES, end - at));
    await readFully(handle, piece, at);
    yield piece;
    at += piece.length;
  }
}

/** The range that a request asks for and gets; `undefined` for the whole. */
function chosenRange(
  request: Request,
  length: number,
  etag: string,
): { readonly begin: number; readonly end: number } | undefined {
  const field = request.headers.get("range");
  if (field === null) return undefined;
  // A date, or a tag of other content, asks for the whole of what is there now.
  const condition = request.headers.get("if-range");
  if (condition !== null && condition.trim() !== etag) return undefined;
  const parsed = /^bytes=([0-9]{0,16})-([0-9]{0,16})$/.exec(field.trim());
  if (parsed === null) return undefined;
  const [, first = "", last = ""] = parsed;
  if (first === "" && last === "") return undefined;
  const begin = first === "" ? Math.max(0, length - Number(last)) : Number(first);
  const end = first === "" || last === "" ? length : Math.min(Number(last) + 1, length);
  if (first !== "" && last !== "" && Number(last) < Number(first)) return undefined;
  if (begin >= length) {
    throw new Problem("range", `the content has ${length} bytes`, {
      fields: { length },
      headers: { "content-range": `bytes */${length}` },
    });
  }
  return { begin, end };
}

async function gather(content: Content, begin: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
  const whole = new Uint8Array(end - begin);
  let at = 0;
  for await (const piece of content.read(begin, end, freshPiece)) {
    whole.set(piece, at);
    at += piece.length;
  }
  if (at !== whole.length) throw new Problem("internal", `${at} bytes came, due are ${whole.length}`);
  return whole;
}

/** A stream that is one piece ahead of what is sent. It ends after all bytes or with an error, which cuts the connection. */
function streamOf(
  content: Content,
  begin: number,
  end: number,
  release: () => void,
): ReadableStream<Uint8Array> {
  const answer = { content, begin, end, release };
  return RUNTIME.name === "bun" ? directStream(answer) : queuedStream(answer);
}

interface StreamedAnswer {
  readonly content: Content;
  readonly begin: number;
  readonly end: number;
  /** Called when it is over. */
  readonly release: () => void;
}

/** For Bun, which takes what a direct stream writes before it asks for more: pieces are used again. */
function directStream({ content, begin, end, release }: StreamedAnswer): ReadableStream<Uint8Array> {
  const source = content.read(begin, end, pieceRing());
  let gone = false;
  return new ReadableStream<Uint8Array>({
    type: "direct",
    async pull(controller): Promise<void> {
      try {
        let left = end - begin;
        for (let next = source.next(); ; ) {
          const { value, done } = await next;
          if (done === true) {
            if (left > 0) throw missing(left);
            return;
          }
          // Made while this one is sent. Its failure is met when its turn comes.
          next = source.next();
          next.catch(() => undefined);
          left -= value.length;
          const taken = await controller.write(value);
          if (gone || taken === 0) return;
        }
      } finally {
        release();
        await source.return(undefined);
      }
    },
    cancel(): void {
      gone = true;
      release();
    },
  });
}

function queuedStream({ content, begin, end, release }: StreamedAnswer): ReadableStream<Uint8Array> {
  const source = content.read(begin, end, freshPiece);
  let left = end - begin;
  let ahead: Promise<IteratorResult<Uint8Array>> | undefined;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller): Promise<void> {
        try {
          const { value, done } = await (ahead ?? source.next());
          if (done !== true) {
            ahead = source.next();
            ahead.catch(() => undefined);
            left -= value.length;
            controller.enqueue(value);
          } else if (left === 0) {
            release();
            controller.close();
          } else throw missing(left);
        } catch (error) {
          release();
          controller.error(error);
        }
      },
      async cancel(): Promise<void> {
        release();
        await source.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
}

function missing(bytes: number): Problem {
  return new Problem("internal", `${bytes} bytes are missing`);
}

/** Counts one more until what is returned is called. @throws Problem when there are as many as may be. */
function takeOne(count: OpenCount): () => void {
  if (count.open >= count.limit) {
    throw new Problem("busy", `${count.limit} answers are being sent, which is the most`, {
      headers: { "retry-after": "1" },
    });
  }
  count.open++;
  let held = true;
  return () => {
    if (held) count.open--;
    held = false;
  };
}

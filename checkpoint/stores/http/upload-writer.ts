/**
 * A file on its way to a service: bytes are gathered, and appended while the next ones are gathered. After a cut, or when
 * the service was away, the writer asks how far it got and goes on from there.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { StoreWriter } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { type Client, RefusedError } from "./client.ts";

/** Appends under way at once: the service takes them one after another, and waits for no answer to be read. */
const PARTS_AHEAD = 3;
/** Appends that fail one after another without a byte of progress, before the upload fails. */
const MOST_STALLS = 8;

/** Where a file goes. */
export interface UploadTarget {
  readonly client: Client;
  /** Resource of the save. */
  readonly save: string;
  /** For messages. */
  readonly name: string;
  readonly file: string;
  /** Length of the file, where it is known: the service sets room aside. */
  readonly bytes?: number | undefined;
  /** Bytes of one append. */
  readonly partBytes: number;
}

interface Part {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly offset: number;
}

/** Begins a file of a save. @throws CheckpointError when the save has it already, or is over. */
export async function uploadWriter(target: UploadTarget): Promise<StoreWriter> {
  const { client, save, name, file, bytes: length, partBytes } = target;
  const what = `save of ${name}: file ${file}`;
  const created = await client(what, {
    method: "POST",
    url: `${save}/uploads?file=${encodeURIComponent(file)}`,
    headers: {
      "upload-complete": "?0",
      "idempotency-key": randomUUID(),
      ...(length === undefined ? {} : { "upload-length": String(length) }),
    },
    accept: [201],
  });
  const upload = locationOf(created.headers, save, what);

  // One fills while others are on their way.
  let buffers: Uint8Array<ArrayBuffer>[] = [];
  /** A buffer for what comes next: no larger than that can be, where it is known. */
  const room = (): Uint8Array<ArrayBuffer> => {
    const left = length === undefined ? partBytes : Math.max(length - offset, 1);
    return buffers.pop() ?? new Uint8Array(Math.min(partBytes, left));
  };
  let offset = 0;
  let filling = room();
  let filled = 0;
  /** Parts on their way, the oldest first. */
  const sending: Promise<void>[] = [];
  let ended = false;
  let sha256: string | undefined;

  /** Where the service stands. */
  const standing = async (): Promise<{ readonly offset: number; readonly complete: boolean }> => {
    const { headers } = await client(what, { method: "HEAD", url: upload, accept: [200, 204] });
    return {
      offset: Number(headers.get("upload-offset")),
      complete: headers.get("upload-complete") === "?1",
    };
  };

  /** Sends a part at once, the next time after the one before has arrived: then it is known what is missing. */
  const send = async (part: Part, last: boolean, before: Promise<void> | undefined): Promise<void> => {
    const end = part.offset + part.bytes.length;
    let at = part.offset;
    for (let stalls = 0; ; ) {
      try {
        const { headers } = await client(what, {
          method: "PATCH",
          url: upload,
          headers: {
            "content-type": "application/partial-upload",
            "upload-offset": String(at),
            "upload-complete": last ? "?1" : "?0",
          },
          body: part.bytes.subarray(at - part.offset),
          accept: [201, 204],
          once: true,
        });
        if (last) sha256 = digestOf(headers, what);
        return;
      } catch (error) {
        const refused = error instanceof RefusedError;
        if (refused && error.status !== 409) throw error;
        await before;
        const now = await standing();
        // Later parts may have arrived too, and even the last one.
        if (!last && (now.complete || now.offset >= end)) return;
        if (now.offset < part.offset || now.offset > end) throw error;
        stalls = now.offset > at ? 0 : stalls + 1;
        if (stalls >= MOST_STALLS) throw error;
        if (stalls > 0) await sleep(50 * 2 ** stalls);
        at = now.offset;
      }
    }
  };

  const hand = async (last: boolean): Promise<void> => {
    const buffer = filling;
    const part = { bytes: buffer.subarray(0, filled), offset };
    offset += filled;
    filled = 0;
    const sent = send(part, last, sending.at(-1)).then(() => void buffers.push(buffer));
    // Awaited by a later call; until then its failure is nobody's.
    sent.catch(() => undefined);
    sending.push(sent);
    if (last) await Promise.all(sending);
    else {
      if (sending.length >= PARTS_AHEAD) await sending.shift();
      filling = room();
    }
  };

  const checkWriting = (): void => {
    if (ended) throw new CheckpointError(`${what}: it was closed or aborted`);
  };

  return {
    get sha256() {
      return sha256;
    },
    async write(bytes: Uint8Array): Promise<void> {
      checkWriting();
      for (let at = 0; at < bytes.length; ) {
        // Not as soon as it is full: what ends the file goes with `close`, which would else send a part without bytes.
        if (filled === filling.length) await hand(false);
        const count = Math.min(bytes.length - at, filling.length - filled);
        filling.set(bytes.subarray(at, at + count), filled);
        at += count;
        filled += count;
      }
    },
    async close(): Promise<void> {
      checkWriting();
      await hand(true);
      ended = true;
      buffers = [];
    },
    async abort(): Promise<void> {
      if (ended) return;
      ended = true;
      await Promise.allSettled(sending);
      await client(what, { method: "DELETE", url: upload, accept: [204, 404, 409, 410] });
    },
  };
}

/** The SHA-256 of a complete upload. @throws CheckpointError when the answer has none. */
function digestOf(headers: Headers, what: string): string {
  const [, sha256] = /^"([0-9a-f]{64})"$/.exec(headers.get("etag") ?? "") ?? [];
  if (sha256 !== undefined) return sha256;
  throw new CheckpointError(`${what}: the service did not tell its SHA-256`);
}

/** The resource that an answer names. @throws CheckpointError when it lies with another host. */
export function locationOf(headers: Headers, base: string, what: string): string {
  const url = URL.parse(headers.get("location") ?? "", base);
  if (url === null || url.origin !== new URL(base).origin) {
    throw new CheckpointError(`${what}: the service names a resource of another host`);
  }
  return url.href;
}

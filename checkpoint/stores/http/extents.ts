/**
 * Reading a file of a checkpoint by what is known to be read next: one request for all of an extent, whose bytes go where
 * they belong as they come. Each request costs both sides more than the bytes of a short range.
 *
 * @module
 */
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { freeChunk } from "../../free-chunk.ts";
import type { BodyReader } from "./client.ts";

/** Bytes `[begin, end)` that one request brings. */
export interface Extent {
  /** Whether all of it came, or no more will. */
  readonly over: boolean;
  /** Whether it goes on with bytes `[begin, end)`. */
  continues(begin: number, end: number): boolean;
  /** Fills `target` with the next bytes; calls wait for each other. @throws CheckpointError when they do not come; then it is over. */
  take(target: Uint8Array): Promise<void>;
  /** Ends the request. */
  close(): Promise<void>;
}

const NOTHING: Uint8Array = new Uint8Array(0);

/** An extent that is requested when its first bytes are. */
export function readExtent(
  begin: number,
  end: number,
  request: (begin: number, end: number) => Promise<BodyReader | undefined>,
): Extent {
  let asked = begin;
  let over = false;
  let reader: Promise<BodyReader | undefined> | undefined;
  /** What came last, and how much of it was taken. */
  let chunk = NOTHING;
  let taken = 0;
  let turn: Promise<void> = Promise.resolve();

  let closing: Promise<void> | undefined;

  const cancel = async (): Promise<void> => {
    await (await reader?.catch(() => undefined))?.cancel().catch(() => undefined);
  };
  const close = (): Promise<void> => {
    over = true;
    closing ??= cancel();
    return closing;
  };
  const fill = async (target: Uint8Array): Promise<void> => {
    if (over) throw new CheckpointError("the request is over");
    reader ??= request(begin, end);
    const source = await reader;
    for (let at = 0; at < target.length; ) {
      if (taken === chunk.length) {
        const next = await source?.read();
        if (next?.value === undefined || next.done) throw new CheckpointError("the connection was cut");
        chunk = next.value;
        taken = 0;
      }
      const count = Math.min(chunk.length - taken, target.length - at);
      target.set(chunk.subarray(taken, taken + count), at);
      taken += count;
      at += count;
      if (taken === chunk.length) {
        freeChunk(chunk);
        chunk = NOTHING;
        taken = 0;
      }
    }
  };
  return {
    get over() {
      return over;
    },
    continues: (from, to) => !over && from === asked && to <= end,
    take(target: Uint8Array): Promise<void> {
      asked += target.length;
      const last = asked === end;
      const done = turn.then(async () => {
        try {
          await fill(target);
          if (!last) return;
          over = true;
          // Its end is read too, so that the connection serves again.
          const end = await (await reader)?.read();
          if (end?.done === false) await close();
        } catch (error) {
          await close();
          throw error;
        }
      });
      turn = done.catch(() => undefined);
      return done;
    },
    close,
  };
}

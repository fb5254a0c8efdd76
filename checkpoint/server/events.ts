/**
 * What happens in a run, as it happens: numbered events, the last of which a subscriber that was away gets again.
 *
 * @module
 */

/** What can happen. */
export type EventType =
  | "save-begun"
  | "upload-progress"
  | "file-stored"
  | "save-aborted"
  | "save-expired"
  | "checkpoint-committed"
  | "checkpoint-deleted"
  | "checkpoint-verified";

/** One event. */
export interface RunEvent {
  /** Counts up by one, from 1 at the start of the process. */
  readonly id: number;
  readonly type: EventType;
  readonly data: Readonly<Record<string, unknown>>;
}

/** The events of one run. */
export interface Events {
  publish(type: EventType, data: Readonly<Record<string, unknown>>): void;
  /** Calls `listener` with every remembered event after `after`, and with all to come. @returns what ends it. */
  subscribe(after: number, listener: (event: RunEvent) => void): () => void;
  /** The number of the newest event. */
  readonly last: number;
}

/** Events that are remembered. */
const REMEMBERED = 1000;

/** A run's events; none yet. */
export function createEvents(): Events {
  const listeners = new Set<(event: RunEvent) => void>();
  let remembered: RunEvent[] = [];
  let last = 0;
  return {
    publish(type, data): void {
      const event = { id: ++last, type, data };
      remembered.push(event);
      if (remembered.length > 2 * REMEMBERED) remembered = remembered.slice(-REMEMBERED);
      for (const listener of listeners) listener(event);
    },
    subscribe(after, listener): () => void {
      // An id from before a restart lies ahead of all there is: everything remembered is new to that subscriber.
      const from = after > last ? 0 : after;
      for (const event of remembered.slice(-REMEMBERED)) if (event.id > from) listener(event);
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    get last(): number {
      return last;
    },
  };
}

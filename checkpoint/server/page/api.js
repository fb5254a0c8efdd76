/**
 * Requests to the service that this page came from. A token is kept for the browser's tab and sent in a header alone:
 * never in a URL, which would be logged.
 *
 * @module
 */

/** The service's root, wherever it is mounted. */
const BASE = new URL("../", import.meta.url);
const TOKEN = `fsdp token ${BASE.pathname}`;

/** An answer that is no success. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** @returns {string | undefined} */
export function token() {
  return sessionStorage.getItem(TOKEN) ?? undefined;
}

/** @param {string | undefined} value */
export function setToken(value) {
  if (value === undefined) sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, value);
}

/**
 * The URL of a resource, from the segments of its path.
 *
 * @param {...string} segments
 */
export function urlOf(...segments) {
  return new URL(`v1/${segments.map(encodeURIComponent).join("/")}`, BASE).href;
}

/**
 * A request, and its answer when that is a success. @throws Refused otherwise.
 *
 * @param {string} url
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
export async function ask(url, init = {}) {
  const headers = new Headers(init.headers);
  const known = token();
  if (known !== undefined) headers.set("authorization", `Bearer ${known}`);
  const response = await fetch(url, { ...init, headers }).catch((error) => {
    if (init.signal?.aborted) throw error;
    throw new Refused(0, "the service cannot be reached");
  });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, String(problem.detail ?? problem.title ?? `status ${response.status}`));
}

/**
 * The JSON of a resource.
 *
 * @param {string} url
 * @param {AbortSignal} signal
 * @returns {Promise<any>}
 */
export async function getJson(url, signal) {
  const response = await ask(url, { signal, headers: { accept: "application/json" } });
  return await response.json();
}

/**
 * What happens in a run, as it happens, for as long as `signal` lets it. After a break the stream goes on where it was;
 * `onOpen` is told each time, as more may have happened than is remembered.
 *
 * @param {string} run
 * @param {{ signal: AbortSignal, onOpen: () => void, onEvent: (type: string, data: any) => void }} options
 */
export async function followEvents(run, { signal, onOpen, onEvent }) {
  /** @type {string | undefined} */
  let last;
  while (!signal.aborted) {
    try {
      const headers = last === undefined ? {} : { "last-event-id": last };
      const response = await ask(urlOf("runs", run, "events"), { signal, headers });
      onOpen();
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
      const decoder = new TextDecoder();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += decoder.decode(value, { stream: true });
        const messages = text.split("\n\n");
        text = messages.pop() ?? "";
        for (const message of messages) {
          const fields = new Map(message.split("\n").map((line) => splitField(line)));
          last = fields.get("id") ?? last;
          const type = fields.get("event");
          if (type !== undefined) onEvent(type, JSON.parse(fields.get("data") ?? "null"));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && [401, 403, 404].includes(error.status)) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

/**
 * @param {string} line
 * @returns {[string, string]}
 */
function splitField(line) {
  const at = line.indexOf(": ");
  return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 2)];
}

/**
 * Parts of the page that change while one looks at them.
 *
 * @module
 */
import { h } from "./dom.js";
import { formatAge } from "./format.js";

const AGE_MS = 10_000;

/**
 * Calls `task` every `ms` while the page can be seen, until `signal` ends it.
 *
 * @param {number} ms
 * @param {AbortSignal} signal
 * @param {() => void} task
 */
export function every(ms, signal, task) {
  const timer = setInterval(() => {
    if (document.visibilityState === "visible") task();
  }, ms);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/**
 * How long ago something was, kept right.
 *
 * @param {number | undefined} at
 * @param {AbortSignal} signal
 */
export function age(at, signal) {
  if (at === undefined) return h("span", {}, "");
  const element = h(
    "time",
    { datetime: new Date(at).toISOString(), title: new Date(at).toLocaleString() },
    formatAge(at),
  );
  every(AGE_MS, signal, () => {
    element.textContent = formatAge(at);
  });
  return element;
}

/**
 * Calls `task` a little after the first of many calls, and once for all of them; not again before it has ended.
 *
 * @param {number} ms
 * @param {() => Promise<void>} task
 */
export function gathered(ms, task) {
  let waiting = false;
  /** @type {Promise<void>} */
  let last = Promise.resolve();
  return () => {
    if (waiting) return;
    waiting = true;
    last = last.then(async () => {
      await new Promise((resolve) => setTimeout(resolve, ms));
      waiting = false;
      await task().catch(() => undefined);
    });
  };
}

/**
 * All runs: how many checkpoints each has, the newest one, and whether one is being saved.
 *
 * @module
 */
import { getJson, Refused, urlOf } from "./api.js";
import { h, plain } from "./dom.js";
import { formatBytes, formatCount, formatMany } from "./format.js";
import { age, every } from "./live.js";

const REFRESH_MS = 5000;

/** @param {AbortSignal} signal */
export async function runsView(signal) {
  const list = h("ul", { class: "runs" });
  const view = h("section", {}, h("h1", {}, "Runs"), list);
  const refresh = async () => {
    const { runs } = await getJson(urlOf("runs"), signal);
    const focused = document.activeElement?.getAttribute("href");
    const rows = await Promise.all(runs.map((/** @type {string} */ run) => row(run, signal)));
    list.replaceChildren(...rows);
    // The same link is another element now.
    if (focused)
      for (const link of list.querySelectorAll("a")) if (link.getAttribute("href") === focused) link.focus();
    if (runs.length === 0) list.replaceChildren(nothing());
  };
  await refresh();
  every(REFRESH_MS, signal, () => void refresh().catch(() => undefined));
  return view;
}

function nothing() {
  return h(
    "li",
    { class: "panel" },
    h("p", {}, "No run has saved here yet. To make one:"),
    h("pre", {}, `bun mod.ts train --save ${new URL("../runs/one", import.meta.url).href}`),
  );
}

/**
 * @param {string} run
 * @param {AbortSignal} signal
 */
async function row(run, signal) {
  const [names, newest, saves] = await Promise.all([
    getJson(`${urlOf("runs", run, "checkpoints")}?names=only&limit=1000`, signal),
    getJson(urlOf("runs", run, "checkpoints", "latest"), signal).catch(noneYet),
    getJson(urlOf("runs", run, "saves"), signal).catch(noneYet),
  ]);
  const count = names.checkpoints.length;
  const saving = saves?.saves?.length ?? 0;
  const counted = count === 1000 ? "1,000 checkpoints and more" : formatMany(count, "checkpoint");
  const facts = [
    h("span", {}, counted),
    newest?.step === undefined ? undefined : h("span", {}, `newest at step ${formatCount(newest.step)}`),
    newest?.bytes === undefined ? undefined : h("span", {}, formatBytes(newest.bytes)),
    newest?.createdAt === undefined ? undefined : age(newest.createdAt, signal),
  ];
  return h(
    "li",
    {},
    h("a", { href: `#/${encodeURIComponent(run)}` }, h("bdi", {}, plain(run))),
    saving > 0 ? h("span", { class: "badge live" }, "saving") : undefined,
    h("p", { class: "facts" }, facts),
  );
}

/** @param {unknown} error */
function noneYet(error) {
  if (error instanceof Refused && (error.status === 404 || error.status === 403)) return undefined;
  throw error;
}

/**
 * A run: its checkpoints, newest first, and the saves in progress, as events tell of them.
 *
 * @module
 */
import { followEvents, getJson, urlOf } from "./api.js";
import { announce, h, plain } from "./dom.js";
import { downloadLink } from "./download.js";
import { formatBytes, formatCount, formatMany } from "./format.js";
import { age, gathered } from "./live.js";
import { createSaves } from "./saves.js";
import { verifyControl } from "./verify.js";

/** Names per request. */
const PAGE = 200;
/** Checkpoints shown before one asks for more. */
const SHOWN = 100;
const GATHER_MS = 150;

/**
 * @param {string} run
 * @param {AbortSignal} signal
 */
export async function runView(run, signal) {
  const saves = createSaves(run, signal);
  const body = h("tbody");
  const none = h("p", { class: "hint" }, "No checkpoint is committed yet.");
  const more = h("button", { type: "button", hidden: true });
  const table = h(
    "table",
    { class: "checkpoints" },
    h("caption", { class: "hidden" }, `Checkpoints of ${plain(run)}, newest first`),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["Checkpoint", "State", "Step", "Ranks", "Size", "Age", "Actions"].map((name) =>
          h("th", { scope: "col" }, name),
        ),
      ),
    ),
    body,
  );
  /** Rows by what they show, so that one which stays keeps its focus and its verdict. */
  let rows = new Map();
  let most = SHOWN;

  const refresh = async () => {
    const all = (await listAll(run, signal)).sort(newestFirst);
    const next = new Map();
    for (const checkpoint of all.slice(0, most)) {
      const key = JSON.stringify(checkpoint);
      next.set(key, rows.get(key) ?? row(run, checkpoint, signal));
    }
    for (const [key, element] of rows) if (!next.has(key)) element.remove();
    for (const [i, element] of [...next.values()].entries()) {
      if (body.children[i] !== element) body.insertBefore(element, body.children[i] ?? null);
    }
    rows = next;
    table.hidden = all.length === 0;
    none.hidden = all.length > 0;
    more.hidden = all.length <= most;
    more.textContent = `Show ${formatMany(all.length - most, "older one")}`;
  };
  more.addEventListener("click", () => {
    most = Number.POSITIVE_INFINITY;
    void refresh();
  });

  await Promise.all([refresh(), saves.refresh()]);
  const refreshSoon = gathered(GATHER_MS, refresh);
  const savesSoon = gathered(GATHER_MS, saves.refresh);
  void followEvents(run, {
    signal,
    onOpen() {
      refreshSoon();
      savesSoon();
    },
    onEvent(type, data) {
      if (type === "upload-progress" && saves.progress(data)) return;
      if (type === "checkpoint-committed") announce(`${data.name} is committed`);
      if (type.startsWith("checkpoint-")) refreshSoon();
      savesSoon();
    },
  });
  return h(
    "section",
    {},
    h("h1", {}, h("bdi", {}, plain(run))),
    saves.element,
    h("h2", {}, "Checkpoints"),
    none,
    table,
    more,
  );
}

/**
 * @param {string} run
 * @param {AbortSignal} signal
 */
async function listAll(run, signal) {
  const all = [];
  for (let after = ""; ; ) {
    const url = `${urlOf("runs", run, "checkpoints")}?limit=${PAGE}${after === "" ? "" : `&after=${encodeURIComponent(after)}`}`;
    const { checkpoints } = await getJson(url, signal);
    all.push(...checkpoints);
    if (checkpoints.length < PAGE) return all;
    after = checkpoints.at(-1).name;
  }
}

/** @param {any} a @param {any} b */
function newestFirst(a, b) {
  return (
    (b.step ?? -1) - (a.step ?? -1) || (b.createdAt ?? 0) - (a.createdAt ?? 0) || (a.name < b.name ? 1 : -1)
  );
}

/**
 * @param {string} run
 * @param {any} checkpoint
 * @param {AbortSignal} signal
 */
function row(run, checkpoint, signal) {
  const { name, step, worldSize, bytes, createdAt, readable, exportable, pinned, labels, metrics } =
    checkpoint;
  const { button, result } = verifyControl(run, name, signal);
  const cell = (/** @type {string} */ label, /** @type {import("./dom.js").Child[]} */ ...children) =>
    h("td", { "data-label": label }, ...children);
  const url = urlOf("runs", run, "checkpoints", name, "export.safetensors");
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row" },
      h("a", { href: `#/${encodeURIComponent(run)}/${encodeURIComponent(name)}` }, h("bdi", {}, plain(name))),
      [...Object.entries(labels), ...Object.entries(metrics)].map(([key, value]) =>
        h("span", { class: "badge" }, h("bdi", {}, plain(`${key}: ${value}`))),
      ),
    ),
    cell(
      "State",
      h("span", { class: readable ? "badge good" : "badge bad" }, readable ? "committed" : "unreadable"),
      pinned ? h("span", { class: "badge" }, "pinned") : undefined,
    ),
    cell("Step", step === undefined ? "" : formatCount(step)),
    cell("Ranks", worldSize === undefined ? "" : formatCount(worldSize)),
    cell("Size", bytes === undefined ? "" : formatBytes(bytes)),
    cell("Age", age(createdAt, signal)),
    cell(
      "Actions",
      h(
        "div",
        { class: "actions" },
        exportable
          ? downloadLink("Download", url, `${name}.safetensors`, `Download the model of ${name}`)
          : undefined,
        button,
      ),
      result,
    ),
  );
}

/**
 * Saves in progress: how much of each has come, file by file.
 *
 * @module
 */
import { getJson, Refused, urlOf } from "./api.js";
import { h, plain } from "./dom.js";
import { formatBytes, formatMany } from "./format.js";
import { age } from "./live.js";

/**
 * The saves of a run.
 *
 * @param {string} run
 * @param {AbortSignal} signal
 */
export function createSaves(run, signal) {
  const list = h("ul", { class: "saves" });
  const element = h("section", { hidden: true }, h("h2", {}, "Being saved"), list);
  /** @type {Map<string, ReturnType<typeof showSave>>} */
  let shown = new Map();

  return {
    element,
    /** Asks the service. Who may not look at saves sees none. */
    async refresh() {
      const { saves } = await getJson(urlOf("runs", run, "saves"), signal).catch((error) => {
        if (error instanceof Refused && (error.status === 403 || error.status === 404)) return { saves: [] };
        throw error;
      });
      const next = new Map();
      for (const save of saves) {
        const view = shown.get(save.id) ?? showSave(save, signal);
        view.update(save);
        next.set(save.id, view);
      }
      shown = next;
      list.replaceChildren(...[...shown.values()].map((view) => view.element));
      element.hidden = saves.length === 0;
    },
    /**
     * Takes in a progress event. Returns whether all of it is shown now.
     *
     * @param {{ save: string, file?: string, offset: number, length?: number }} event
     */
    progress(event) {
      return shown.get(event.save)?.progress(event) ?? false;
    },
  };
}

/**
 * @param {any} save
 * @param {AbortSignal} signal
 */
function showSave(save, signal) {
  const facts = h("p", { class: "facts" });
  const bar = h("progress", { "aria-label": `Progress of ${save.checkpoint}` });
  const files = h("ul", { class: "files" });
  const element = h(
    "li",
    { class: "panel" },
    h("p", {}, h("strong", {}, h("bdi", {}, plain(save.checkpoint))), " begun ", age(save.createdAt, signal)),
    bar,
    facts,
    h("details", {}, h("summary", {}, "Files"), files),
  );
  /** Bytes that came and are due, by file or upload. @type {Map<string, { came: number, due: number | undefined, done: boolean }>} */
  let parts = new Map();
  let missing = 0;
  const draw = () => {
    const all = [...parts.values()];
    const came = all.reduce((sum, part) => sum + part.came, 0);
    const due = all.reduce((sum, part) => sum + Math.max(part.due ?? 0, part.came), 0);
    const done = all.filter((part) => part.done).length;
    bar.max = Math.max(1, due);
    bar.value = came;
    facts.replaceChildren(
      h("span", {}, `${formatBytes(came)} of ${formatBytes(due)}`),
      h("span", {}, `${done} of ${formatMany(all.length, "file")}`),
      ...(missing > 0 ? [h("span", {}, `${formatMany(missing, "rank")} to come`)] : []),
    );
    files.replaceChildren(
      ...[...parts].map(([name, { came: bytes, due: length, done: whole }]) =>
        h(
          "li",
          {},
          h("bdi", {}, plain(name)),
          h(
            "span",
            {},
            whole
              ? formatBytes(bytes)
              : `${formatBytes(bytes)} of ${length === undefined ? "?" : formatBytes(length)}`,
          ),
        ),
      ),
    );
  };
  return {
    element,
    /** @param {any} now */
    update(now) {
      parts = new Map();
      for (const { file, length } of now.files) parts.set(file, { came: length, due: length, done: true });
      for (const { id, file, offset, length } of now.uploads)
        parts.set(file ?? id, { came: offset, due: length, done: false });
      missing = now.missingRanks.length;
      draw();
    },
    /** @param {{ file?: string, offset: number, length?: number }} event */
    progress({ file, offset, length }) {
      if (file === undefined || !parts.has(file)) return false;
      parts.set(file, { came: offset, due: length, done: false });
      draw();
      return true;
    },
  };
}

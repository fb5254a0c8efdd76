/**
 * The shard map: a bar for every tensor, with a stretch for every chunk in the colour of the rank that holds it. A bar is
 * drawn when it comes into sight, so that thousands of tensors over 64 ranks cost what is looked at.
 *
 * @module
 */
import { h, plain, s } from "./dom.js";
import { formatBytes, formatCount, formatMany } from "./format.js";
import { cellsOf, cutAxes, partOf, ranksOf } from "./layout.js";

/** @typedef {import("./layout.js").Tensor} Tensor */

/** Pixels that a rank's number needs. */
const LABEL_PX = 18;
/** How far outside the window bars are drawn already. */
const MARGIN = "400px";
/** Chunks that the table of one tensor lists. */
const MOST_LISTED = 512;

/** Neighbours are far apart on the colour wheel, at any number of ranks. @param {number} rank */
function colour(rank) {
  return `oklch(${rank % 2 === 0 ? 78 : 70}% 0.13 ${((rank * 137.508) % 360).toFixed(1)})`;
}

/**
 * @param {{ tensors: readonly Tensor[], files: readonly { name: string }[], worldSize: number }} manifest
 * @param {AbortSignal} signal
 */
export function shardMap({ tensors, files, worldSize }, signal) {
  const ranks = ranksOf(files);
  /** @type {number | undefined} */
  let marked;
  const list = h("ul", { class: "tensors" });
  const rows = tensors.map((tensor) => tensorRow(tensor, ranks));
  const byElement = new Map(
    rows.flatMap((row) => [
      [/** @type {Element} */ (row.element), row],
      [/** @type {Element} */ (row.bar), row],
    ]),
  );
  const mark = () => {
    for (const rect of list.querySelectorAll("rect")) {
      rect.classList.toggle("dim", marked !== undefined && rect.dataset.rank !== String(marked));
    }
  };
  const drawn = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        byElement.get(target)?.draw();
        drawn.unobserve(target);
      }
      if (marked !== undefined) mark();
    },
    { rootMargin: MARGIN },
  );
  // A number fits or does not, as the window gets wider or narrower.
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) byElement.get(target)?.label();
  });
  signal.addEventListener("abort", () => {
    drawn.disconnect();
    resized.disconnect();
  });
  for (const { element, bar } of rows) {
    drawn.observe(element);
    resized.observe(bar);
  }

  const legend = rankLegend(tensors, ranks, worldSize, (rank) => {
    marked = rank;
    mark();
  });
  const count = h("output", { for: "filter group" });
  const filter = h("input", {
    id: "filter",
    type: "search",
    placeholder: "part of a name",
    autocomplete: "off",
    spellcheck: "false",
  });
  const groups = groupsOf(tensors);
  const group = h(
    "select",
    { id: "group" },
    groups.map(({ name }, i) => h("option", { value: i }, name)),
  );
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    const chosen = groups[Number(group.value)];
    const fitting = rows.filter(({ tensor }) => {
      return chosen?.has(tensor) && words.every((word) => tensor.name.toLowerCase().includes(word));
    });
    list.replaceChildren(...fitting.map((row) => row.element));
    count.textContent =
      fitting.length === tensors.length
        ? formatMany(tensors.length, "tensor")
        : `${formatCount(fitting.length)} of ${formatMany(tensors.length, "tensor")}`;
  };
  filter.addEventListener("input", apply);
  group.addEventListener("change", apply);
  list.addEventListener("keydown", moveFocus);
  const slash = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
    event.preventDefault();
    filter.focus();
  };
  document.addEventListener("keydown", slash, { signal });
  apply();
  return h(
    "div",
    { class: "map" },
    legend,
    h(
      "div",
      { class: "choose" },
      h("label", { for: "group" }, "Show"),
      group,
      h("label", { for: "filter" }, "with"),
      filter,
      count,
    ),
    h(
      "p",
      { class: "hint keys" },
      "Keys: ",
      h("kbd", {}, "/"),
      " finds a tensor, ",
      h("kbd", {}, "↑"),
      " ",
      h("kbd", {}, "↓"),
      " move, ",
      h("kbd", {}, "Enter"),
      " lists who holds it.",
    ),
    list,
  );
}

/** @param {Event} event */
function moveFocus(event) {
  const { key, target } = /** @type {KeyboardEvent} */ (event);
  const step = { ArrowDown: 1, ArrowUp: -1 }[key];
  if (step === undefined || !(target instanceof HTMLElement)) return;
  const buttons = [.../** @type {HTMLElement} */ (event.currentTarget).querySelectorAll("button")];
  const next = buttons[buttons.indexOf(/** @type {HTMLButtonElement} */ (target)) + step];
  if (next === undefined) return;
  event.preventDefault();
  next.focus();
}

/**
 * One tensor: its name, its bar, and a table of its chunks once it is asked for.
 *
 * @param {Tensor} tensor
 * @param {ReadonlyMap<string, number>} ranks
 */
function tensorRow(tensor, ranks) {
  const { name, dtype, shape, chunks } = tensor;
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.end - chunk.begin, 0);
  const holders = new Set(chunks.map(({ file }) => ranks.get(file))).size;
  const held = `${formatMany(chunks.length, "chunk")} on ${formatMany(holders, "rank")}`;
  const bar = h("div", { class: "bar", role: "img", "aria-label": held });
  /** @type {HTMLElement | undefined} */
  let table;
  const toggle = () => {
    const open = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", String(open));
    table ??= chunkTable(tensor, ranks);
    if (open) element.append(table);
    else table.remove();
  };
  const button = h(
    "button",
    { type: "button", class: "name", "aria-expanded": "false", click: toggle },
    h("bdi", {}, plain(name)),
  );
  const element = h(
    "li",
    {},
    button,
    h(
      "span",
      { class: "facts" },
      h("span", {}, `${dtype} [${shape.join(", ")}]`),
      h("span", {}, formatBytes(bytes)),
    ),
    bar,
  );
  /** @type {readonly { text: SVGTextElement, width: number }[]} */
  let labels = [];
  const label = () => {
    const { clientWidth } = bar;
    for (const { text, width } of labels) text.classList.toggle("hidden", width * clientWidth < LABEL_PX);
  };
  const draw = () => {
    const percent = (/** @type {number} */ part) => `${(part * 100).toFixed(4)}%`;
    const cells = cellsOf(tensor).map((cell) => ({ ...cell, rank: ranks.get(cell.chunk.file) ?? 0 }));
    const tall = cells.some(({ height }) => height < 1);
    bar.classList.toggle("tall", tall);
    const drawn = cells.map(({ chunk, x, y, width, height, rank }) => {
      const text = s(
        "text",
        { x: percent(x + width / 2), y: percent(y + height / 2) },
        height < 0.4 ? "" : String(rank),
      );
      const rect = s(
        "rect",
        { x: percent(x), y: percent(y), width: percent(width), height: percent(height), "data-rank": rank },
        s("title", {}, `rank ${rank}: ${partOf(tensor, chunk)}`),
      );
      rect.style.fill = colour(rank);
      return { rect, text, width };
    });
    labels = drawn;
    bar.replaceChildren(
      s(
        "svg",
        {},
        drawn.map(({ rect }) => rect),
        drawn.map(({ text }) => text),
      ),
    );
    label();
  };
  return { tensor, element, bar, draw, label };
}

/**
 * @param {Tensor} tensor
 * @param {ReadonlyMap<string, number>} ranks
 */
function chunkTable(tensor, ranks) {
  const shown = tensor.chunks.slice(0, MOST_LISTED);
  const cut = cutAxes(tensor);
  const how = cut.length === 0 ? "not cut" : `cut in ${cut.length === 1 ? "dim" : "dims"} ${cut.join(", ")}`;
  return h(
    "div",
    { class: "chunks" },
    h(
      "table",
      {},
      h(
        "caption",
        {},
        `${how}${shown.length < tensor.chunks.length ? `; the first ${MOST_LISTED} chunks` : ""}`,
      ),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Rank", "Part", "Shape", "File", "Bytes"].map((title) => h("th", { scope: "col" }, title)),
        ),
      ),
      h(
        "tbody",
        {},
        shown.map((chunk) =>
          h(
            "tr",
            {},
            h("td", {}, swatch(ranks.get(chunk.file) ?? 0), String(ranks.get(chunk.file) ?? 0)),
            h("td", {}, partOf(tensor, chunk)),
            h("td", {}, `[${chunk.sizes.join(", ")}]`),
            h("td", {}, h("bdi", {}, plain(chunk.file))),
            h("td", {}, `${formatCount(chunk.begin)} to ${formatCount(chunk.end)}`),
          ),
        ),
      ),
    ),
  );
}

/** @param {number} rank */
function swatch(rank) {
  const element = h("span", { class: "swatch" });
  element.style.backgroundColor = colour(rank);
  return element;
}

/**
 * What each rank holds in all. Pressing one shows just its parts.
 *
 * @param {readonly Tensor[]} tensors
 * @param {ReadonlyMap<string, number>} ranks
 * @param {number} worldSize
 * @param {(rank: number | undefined) => void} onMark
 */
function rankLegend(tensors, ranks, worldSize, onMark) {
  const bytes = new Map(Array.from({ length: Math.min(worldSize, 4096) }, (_, rank) => [rank, 0]));
  for (const { chunks } of tensors) {
    for (const { file, begin, end } of chunks) {
      const rank = ranks.get(file) ?? 0;
      bytes.set(rank, (bytes.get(rank) ?? 0) + end - begin);
    }
  }
  const most = Math.max(1, ...bytes.values());
  const buttons = [...bytes]
    .sort(([a], [b]) => a - b)
    .map(([rank, held]) => {
      const share = h("span", { class: "share" });
      const filled = h("span", {});
      filled.style.width = `${(held / most) * 100}%`;
      filled.style.backgroundColor = colour(rank);
      share.append(filled);
      const click = () => {
        const pressed = button.getAttribute("aria-pressed") === "true";
        for (const other of buttons) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(!pressed));
        onMark(pressed ? undefined : rank);
      };
      /** @type {HTMLButtonElement} */
      const button = h(
        "button",
        { type: "button", "aria-pressed": "false", click },
        h("span", {}, `rank ${rank}`),
        h("span", { class: "held" }, formatBytes(held)),
        share,
      );
      return button;
    });
  return h(
    "div",
    { class: "ranks", role: "group", "aria-label": "Ranks: press one to see its parts alone" },
    buttons,
  );
}

/** Parts of a checkpoint that one may want to see by themselves; those with nothing in them are left out. @param {readonly Tensor[]} tensors */
function groupsOf(tensors) {
  const isModel = (/** @type {Tensor} */ { name }) => name.startsWith("model.");
  const isOptimizer = (/** @type {Tensor} */ { name }) => name.startsWith("optim.");
  const groups = [
    { name: "model", has: isModel },
    { name: "optimizer", has: isOptimizer },
    { name: "others", has: (/** @type {Tensor} */ tensor) => !isModel(tensor) && !isOptimizer(tensor) },
  ].filter(({ has }) => tensors.some(has));
  const all = { name: "all tensors", has: () => true };
  return groups.length > 1 ? [...groups, all] : [all];
}

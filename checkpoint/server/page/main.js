/**
 * The page: which view the address names, the trail to it, and the token where the service wants one.
 *
 * @module
 */
import { Refused, setToken, token } from "./api.js";
import { checkpointView } from "./checkpoint-view.js";
import { h, plain } from "./dom.js";
import { runView } from "./run-view.js";
import { runsView } from "./runs-view.js";

const content = /** @type {HTMLElement} */ (document.getElementById("content"));
const trail = /** @type {HTMLElement} */ (document.getElementById("trail"));
const forget = /** @type {HTMLButtonElement} */ (document.getElementById("forget"));

let shown = new AbortController();

/** The run and checkpoint that the address names: `#/RUN/CHECKPOINT`. */
function place() {
  try {
    return location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return [];
  }
}

/**
 * @param {string | undefined} run
 * @param {string | undefined} checkpoint
 * @param {AbortSignal} signal
 */
function viewOf(run, checkpoint, signal) {
  if (run === undefined) return runsView(signal);
  if (checkpoint === undefined) return runView(run, signal);
  return checkpointView(run, checkpoint, signal);
}

/** @param {boolean} moveFocus */
async function show(moveFocus) {
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  const [run, checkpoint] = place();
  const steps = ["Checkpoints", run, checkpoint].filter((name) => name !== undefined);
  trail.replaceChildren(
    ...steps.map((name, i) => {
      const last = i === steps.length - 1;
      const href = `#/${steps
        .slice(1, i + 1)
        .map(encodeURIComponent)
        .join("/")}`;
      return h(
        "li",
        {},
        h("a", { href, "aria-current": last ? "page" : undefined }, h("bdi", {}, plain(name))),
      );
    }),
  );
  document.title = [...steps.slice(1).map(plain).reverse(), "fsdp checkpoints"].join(" · ");
  forget.hidden = token() === undefined;
  content.setAttribute("aria-busy", "true");
  let view;
  try {
    view = await viewOf(run, checkpoint, signal);
  } catch (error) {
    if (signal.aborted) return;
    view =
      error instanceof Refused && error.status === 401 ? tokenForm() : failure(/** @type {Error} */ (error));
  }
  if (signal.aborted) return;
  content.replaceChildren(view);
  content.removeAttribute("aria-busy");
  if (moveFocus) content.focus({ preventScroll: true });
  if (moveFocus) scrollTo(0, 0);
}

function tokenForm() {
  const wrong = token() !== undefined;
  const input = h("input", {
    id: "token",
    type: "password",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
  });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    setToken(input.value.trim());
    void show(true);
  };
  return h(
    "form",
    { class: "panel", submit },
    h("h1", {}, "This service wants a token"),
    wrong ? h("p", { class: "bad" }, "The token is unknown, or has expired.") : undefined,
    h("label", { for: "token" }, "Token"),
    input,
    h("button", { type: "submit" }, "Use it"),
    h("p", { class: "hint" }, "It is kept until this tab is closed, and sent to this service alone."),
  );
}

/** @param {Error} error */
function failure(error) {
  const again = () => void show(true);
  return h(
    "section",
    { class: "panel", role: "alert" },
    h(
      "h1",
      {},
      error instanceof Refused && error.status === 404 ? "There is nothing here" : "That did not work",
    ),
    h("p", {}, plain(error.message)),
    h("button", { type: "button", click: again }, "Try again"),
  );
}

forget.addEventListener("click", () => {
  setToken(undefined);
  void show(true);
});
addEventListener("hashchange", () => {
  // The skip link's own.
  if (location.hash !== "#content") void show(true);
});
void show(false);

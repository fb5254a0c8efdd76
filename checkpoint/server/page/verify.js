/**
 * The button that has the service read every byte of a checkpoint.
 *
 * @module
 */
import { ask, getJson, urlOf } from "./api.js";
import { announce, h, plain } from "./dom.js";
import { formatMany } from "./format.js";

const POLL_MS = 300;
const MOST_FAULTS = 50;

/**
 * A button, and the place where it shows what came of it.
 *
 * @param {string} run
 * @param {string} checkpoint
 * @param {AbortSignal} signal
 * @returns {{ button: HTMLElement, result: HTMLElement }}
 */
export function verifyControl(run, checkpoint, signal) {
  const result = h("div", { class: "verdict" });
  const button = h(
    "button",
    { type: "button", "aria-label": `Verify ${checkpoint}`, click: () => void verify() },
    "Verify",
  );
  const tell = (/** @type {string} */ kind, /** @type {import("./dom.js").Child[]} */ ...children) => {
    result.replaceChildren(h("p", { class: kind }, ...children));
    announce(`${checkpoint}: ${result.textContent}`);
  };

  const verify = async () => {
    button.disabled = true;
    result.replaceChildren(h("p", { class: "busy" }, "Reading every byte …"));
    try {
      const started = await ask(urlOf("runs", run, "checkpoints", checkpoint, "verify"), {
        method: "POST",
        signal,
      });
      const { id } = await started.json();
      for (;;) {
        const job = await getJson(urlOf("runs", run, "checkpoints", checkpoint, "verify", id), signal);
        if (job.state === "failed") tell("bad", "The verification failed");
        else if (job.state === "done" && job.faults.length === 0)
          tell("good", "Whole: every byte matches its digest");
        else if (job.state === "done") {
          tell("bad", `Damaged: ${formatMany(job.faults.length, "fault")}`);
          const shown = job.faults.slice(0, MOST_FAULTS);
          result.append(
            h(
              "ul",
              {},
              shown.map((/** @type {any} */ fault) =>
                h("li", {}, h("bdi", {}, plain(fault.file)), `: ${plain(fault.problem)}`),
              ),
            ),
          );
        }
        if (job.state !== "running") return;
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    } catch (error) {
      if (!signal.aborted) tell("bad", plain(/** @type {Error} */ (error).message));
    } finally {
      button.disabled = false;
    }
  };
  return { button, result };
}

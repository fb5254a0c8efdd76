/**
 * Downloads. Without a token they are plain links; with one the page itself fetches, to a file that the user picks where
 * the browser lets it, so that no model has to fit in memory.
 *
 * @module
 */
import { ask, token } from "./api.js";
import { announce, h } from "./dom.js";

/**
 * A link that downloads.
 *
 * @param {string} text
 * @param {string} url
 * @param {string} file the name that the file gets
 * @param {string} [label] what it is, for people who do not see the place
 */
export function downloadLink(text, url, file, label = text) {
  const click = (/** @type {Event} */ event) => {
    if (token() === undefined) return;
    event.preventDefault();
    fetchToFile(url, file).catch((error) => {
      if (error.name !== "AbortError") announce(`${file}: ${error.message}`);
    });
  };
  return h("a", { class: "button", href: url, download: file, "aria-label": label, click }, text);
}

/**
 * @param {string} url
 * @param {string} file
 */
async function fetchToFile(url, file) {
  const picker = /** @type {any} */ (globalThis).showSaveFilePicker;
  if (picker !== undefined) {
    const handle = await picker({ suggestedName: file });
    const { body } = await ask(url);
    await body?.pipeTo(await handle.createWritable());
  } else {
    const object = URL.createObjectURL(await (await ask(url)).blob());
    h("a", { href: object, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(object), 60_000);
  }
  announce(`${file} is downloaded`);
}

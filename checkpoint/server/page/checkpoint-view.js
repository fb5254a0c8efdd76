/**
 * A checkpoint: what it is, its loss so far, who holds what, its files and values.
 *
 * @module
 */
import { getJson, Refused, urlOf } from "./api.js";
import { h, plain } from "./dom.js";
import { downloadLink } from "./download.js";
import { formatBytes, formatCount, formatMany } from "./format.js";
import { age } from "./live.js";
import { lossCurve, lossesOf } from "./loss-curve.js";
import { shardMap } from "./shard-map.js";
import { verifyControl } from "./verify.js";

/**
 * @param {string} run
 * @param {string} name
 * @param {AbortSignal} signal
 */
export async function checkpointView(run, name, signal) {
  const info = await getJson(urlOf("runs", run, "checkpoints", name), signal);
  const { button, result } = verifyControl(run, name, signal);
  const heading = h("h1", {}, h("bdi", {}, plain(name)));
  const manifest = await getJson(urlOf("runs", run, "checkpoints", name, "manifest"), signal).catch(
    (error) => {
      if (error instanceof Refused && error.status === 422) return undefined;
      throw error;
    },
  );
  if (manifest === undefined) {
    return h(
      "section",
      {},
      heading,
      h("p", { class: "bad" }, "Its manifest cannot be read, so nobody can tell what is in it."),
      h("div", { class: "actions" }, button),
      result,
    );
  }
  const { tensors, files, values } = manifest;
  const model = tensors.filter((/** @type {any} */ tensor) => tensor.name.startsWith("model."));
  const elements = model.reduce((/** @type {number} */ sum, /** @type {any} */ { shape }) => {
    return sum + shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1);
  }, 0);
  const exported = urlOf("runs", run, "checkpoints", name, "export.safetensors");
  const { losses: _, ...rest } = values;
  const losses = lossesOf(values);
  return h(
    "section",
    {},
    heading,
    h(
      "dl",
      { class: "panel figures" },
      figure("Step", formatCount(manifest.step)),
      figure("Ranks", formatCount(manifest.worldSize)),
      figure("Size", formatBytes(info.bytes)),
      figure("Tensors", formatCount(tensors.length)),
      elements > 0 ? figure("Model", formatMany(elements, "element")) : undefined,
      figure("Saved", age(manifest.createdAt, signal)),
      info.pinned ? figure("State", "committed, pinned") : figure("State", "committed"),
    ),
    h(
      "div",
      { class: "actions" },
      info.exportable ? downloadLink("Download model", exported, `${name}.safetensors`) : undefined,
      button,
    ),
    result,
    losses === undefined ? undefined : [h("h2", {}, "Training loss"), lossCurve(losses)],
    h("h2", {}, "Who holds what"),
    shardMap(manifest, signal),
    h("h2", {}, "Files"),
    fileList(run, name, files),
    Object.keys(rest).length === 0
      ? undefined
      : [
          h("h2", {}, "Values"),
          h("pre", { class: "panel", tabindex: "0" }, plainLines(JSON.stringify(rest, null, 2))),
        ],
  );
}

/**
 * @param {string} term
 * @param {import("./dom.js").Child} value
 */
function figure(term, value) {
  return h("div", {}, h("dt", {}, term), h("dd", {}, value));
}

/**
 * @param {string} run
 * @param {string} checkpoint
 * @param {readonly { name: string, length: number, sha256: string }[]} files
 */
function fileList(run, checkpoint, files) {
  return h(
    "ul",
    { class: "panel files" },
    files.map(({ name, length, sha256 }) =>
      h(
        "li",
        {},
        h("bdi", {}, plain(name)),
        h("span", {}, formatBytes(length)),
        h("code", { title: `SHA-256 ${sha256}` }, sha256.slice(0, 12)),
        downloadLink(
          "Download",
          urlOf("runs", run, "checkpoints", checkpoint, "files", name),
          name,
          `Download ${plain(name)}`,
        ),
      ),
    ),
  );
}

/** @param {string} text */
function plainLines(text) {
  return text.split("\n").map(plain).join("\n");
}

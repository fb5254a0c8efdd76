/**
 * The training loss up to a checkpoint, as a curve. `train` keeps it among the checkpoint's values as
 * `losses: [[step, loss], ...]`.
 *
 * @module
 */
import { h, s } from "./dom.js";
import { formatCount } from "./format.js";

/** @typedef {readonly [step: number, loss: number]} Point */

const WIDTH = 1000;
const HEIGHT = 260;

/**
 * The losses among a checkpoint's values; `undefined` when there is nothing to draw.
 *
 * @param {Readonly<Record<string, unknown>>} values
 * @returns {readonly Point[] | undefined}
 */
export function lossesOf({ losses }) {
  if (!Array.isArray(losses)) return undefined;
  const points = losses.filter(
    (point) => Array.isArray(point) && point.length === 2 && point.every(Number.isFinite),
  );
  points.sort((a, b) => a[0] - b[0]);
  return points.length < 2 ? undefined : points;
}

/** @param {readonly Point[]} points */
export function lossCurve(points) {
  const first = /** @type {Point} */ (points[0]);
  const last = /** @type {Point} */ (points.at(-1));
  const most = points.reduce((a, [, loss]) => Math.max(a, loss), first[1]);
  const least = points.reduce((a, [, loss]) => Math.min(a, loss), first[1]);
  const x = (/** @type {number} */ step) => ((step - first[0]) / Math.max(1, last[0] - first[0])) * WIDTH;
  const y = (/** @type {number} */ loss) => HEIGHT - ((loss - least) / (most - least || 1)) * HEIGHT;
  const line = points
    .map(([step, loss], i) => `${i === 0 ? "M" : "L"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`)
    .join("");
  const mark = s("line", { class: "mark", y1: 0, y2: HEIGHT });
  const said = `from ${first[1].toFixed(4)} at step ${first[0]} to ${last[1].toFixed(4)} at step ${last[0]}`;
  const picture = s(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `Training loss ${said}`,
    },
    [0.25, 0.5, 0.75].map((at) =>
      s("line", { class: "grid", x1: 0, x2: WIDTH, y1: at * HEIGHT, y2: at * HEIGHT }),
    ),
    s("path", { class: "line", d: line }),
    mark,
  );
  const reading = h("output", { for: "loss-step" });
  const slider = h("input", {
    id: "loss-step",
    type: "range",
    min: 0,
    max: points.length - 1,
    value: points.length - 1,
    "aria-label": "Step to read the loss at",
  });
  const read = () => {
    const [step, loss] = /** @type {Point} */ (points[Number(slider.value)]);
    mark.setAttribute("x1", String(x(step)));
    mark.setAttribute("x2", String(x(step)));
    reading.textContent = `step ${formatCount(step)}: ${loss.toFixed(4)}`;
    slider.setAttribute("aria-valuetext", reading.textContent);
  };
  const point = (/** @type {Event} */ event) => {
    const { left, width } = picture.getBoundingClientRect();
    const { clientX } = /** @type {PointerEvent} */ (event);
    const wanted = first[0] + ((clientX - left) / width) * (last[0] - first[0]);
    const nearest = points.reduce((best, [step], i) => {
      return Math.abs(step - wanted) < Math.abs(/** @type {Point} */ (points[best])[0] - wanted) ? i : best;
    }, 0);
    slider.value = String(nearest);
    read();
  };
  slider.addEventListener("input", read);
  picture.addEventListener("pointermove", point);
  read();
  return h(
    "figure",
    { class: "panel curve" },
    h(
      "div",
      { class: "plot" },
      h("span", { class: "top" }, most.toFixed(2)),
      h("span", { class: "bottom" }, least.toFixed(2)),
      picture,
    ),
    h(
      "div",
      { class: "scale" },
      h("span", {}, `step ${formatCount(first[0])}`),
      reading,
      h("span", {}, `step ${formatCount(last[0])}`),
    ),
    slider,
  );
}

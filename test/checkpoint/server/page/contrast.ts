/**
 * How well the texts of a page stand out from what is behind them.
 *
 * @module
 */
import type { Page } from "playwright-core";

/** A text and its contrast ratio, as WCAG 2.2 defines it: 1 to 21. */
export interface Contrast {
  readonly text: string;
  readonly ratio: number;
}

/** Runs in the page: colours as sRGB bytes, by painting them. */
const COLLECT = `(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const layer of layers) {
      canvas.fillStyle = layer;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (text === "" || element.closest("svg, noscript, [hidden], :disabled") || !element.checkVisibility()) continue;
    const grounds = [];
    for (let at = element; at !== null; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
    found.push({ text: text.slice(0, 40), ink: rgb([...grounds, getComputedStyle(element).color]), ground: rgb(grounds) });
  }
  return found;
})()`;

interface Painted {
  readonly text: string;
  readonly ink: readonly number[];
  readonly ground: readonly number[];
}

/** Contrasts of all texts that can be seen, those in pictures aside. */
export async function contrasts(page: Page): Promise<readonly Contrast[]> {
  const painted = await page.evaluate<readonly Painted[]>(COLLECT);
  return painted.map(({ text, ink, ground }) => {
    const [a, b] = [luminance(ink), luminance(ground)];
    return { text, ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) };
  });
}

function luminance(rgb: readonly number[]): number {
  const [r = 0, g = 0, b = 0] = rgb.map((byte) => {
    const c = byte / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/**
 * What the terminal is like: how wide, and whether it shows colours.
 *
 * @module
 */
import process from "node:process";
import { formatBytes } from "../../core/runtime/format.ts";

/** Columns when nothing says how many there are: a file, a pipe. */
const DEFAULT_WIDTH = 100;
const MIN_WIDTH = 20;

/** Columns of the terminal, or of what `COLUMNS` says. */
export function terminalWidth(): number {
  const told = Number(process.env.COLUMNS ?? "");
  const width = process.stdout.columns ?? (Number.isSafeInteger(told) && told > 0 ? told : DEFAULT_WIDTH);
  return Math.max(MIN_WIDTH, width);
}

/** Whether to colour: `always`, `never`, or on a terminal that has not asked for none (https://no-color.org). */
export function useColour(choice: string): boolean {
  if (choice !== "auto") return choice === "always";
  return process.stdout.isTTY === true && (process.env.NO_COLOR ?? "") === "" && process.env.TERM !== "dumb";
}

/** A text in which nothing steers the terminal: names come from files that anybody may have made. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "�");
}

/** A text of at most `width` code points; of a longer one the middle is left out, where names differ least. */
export function shorten(text: string, width: number): string {
  const points = [...text];
  if (points.length <= width) return text;
  const head = Math.ceil((width - 1) / 2);
  return `${points.slice(0, head).join("")}…${points.slice(points.length - (width - 1 - head)).join("")}`;
}

/** Bytes for people, `72 B`, `23.1 KiB`, `1.4 MiB`. */
export function sizeText(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 2 ** 20 ? `${(bytes / 1024).toFixed(1)} KiB` : formatBytes(bytes);
}

/**
 * Quantities for people: bytes, durations and counts as short text, and sizes from such text, the same on every machine and locale.
 *
 * @module
 */

/** Bytes as MiB with one decimal: `"12.3 MiB"`. One unit throughout, so that a column can be compared by eye. */
export function formatBytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
};

/** Bytes of a size such as `"500MB"`, `"5GB"` or `"2 GiB"`; `undefined` for what is no size of at least one byte. */
export function parseBytes(text: string): number | undefined {
  const [, number, unit] = /^(\d+(?:\.\d+)?) ?([KMG]?i?B?)$/i.exec(text.trim()) ?? [];
  const factor = UNITS[(unit ?? "?").toUpperCase()];
  const bytes = Math.floor(Number(number) * (factor ?? Number.NaN));
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}

/** Seconds as `"7s"`, `"3m05s"`, `"2h09m"` or `"3d04h"`; `"?"` when unknown (not finite or negative). */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "?";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${twoDigits(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h${twoDigits(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86_400)}d${twoDigits(Math.floor((whole % 86_400) / 3600))}h`;
}

/** A count rounded to an integer, with commas by thousands: `"12,345"`. */
export function formatCount(count: number): string {
  if (!Number.isFinite(count)) return "?";
  return Math.round(count)
    .toFixed(0)
    .replace(/\B(?=(\d{3})+$)/g, ",");
}

function twoDigits(value: number): string {
  return String(value).padStart(2, "0");
}

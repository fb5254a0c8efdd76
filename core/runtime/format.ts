/**
 * Quantities for people: bytes, durations and counts as short text, the same on every machine and locale.
 *
 * @module
 */

/** Bytes as MiB with one decimal: `"12.3 MiB"`. One unit throughout, so that a column can be compared by eye. */
export function formatBytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
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

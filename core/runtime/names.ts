/**
 * Words of messages about names: every value quoted, and for an unknown name the one that was probably meant.
 *
 * @module
 */

/** A value in quotes, with line breaks and control characters escaped, so that a message stays one line. */
export function quoted(value: string): string {
  return JSON.stringify(value);
}

/** `"a", "b", "c"`; `none` for an empty list. */
export function quotedList(values: readonly string[]): string {
  return values.length === 0 ? "none" : values.map(quoted).join(", ");
}

/**
 * The candidate nearest to `name` by edits (insert, delete, replace, swap of neighbours), or `undefined` when none is
 * near enough to be a slip of the fingers: at most one edit per three characters. The first of equals wins.
 */
export function closestName(name: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(name.length / 3)) + 1;
  for (const candidate of candidates) {
    // Long input comes from outside; lengths bound the distance from below.
    if (Math.abs(candidate.length - name.length) >= bestDistance) continue;
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Optimal string alignment distance, three rows at a time. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, replace);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, beforeLast[j - 2]! + 1);
      }
      row.push(cost);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}

/**
 * Edits to one mapping of a YAML text, in place: every byte that is not concerned stays, comments and order among them.
 *
 * @module
 */
import { isScalar, type Pair, type YAMLMap } from "yaml";

/** A key of a mapping. */
export interface Entry {
  readonly key: string;
  readonly value: unknown;
  readonly pair: Pair<unknown, unknown>;
}

/** What happens to entries: another key and value, or `null` for those that go. */
export interface SectionEdits {
  readonly changed: ReadonlyMap<Entry, { readonly key: string; readonly value: unknown } | null>;
  /** Keys and values that come last. */
  readonly added: readonly (readonly [key: string, value: unknown])[];
}

interface TextEdit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** The entries of a mapping, in order. */
export function entriesOf(section: YAMLMap): readonly Entry[] {
  return section.items.map((pair) => ({
    key: String(isScalar(pair.key) ? pair.key.value : pair.key),
    value: isScalar(pair.value) ? pair.value.value : pair.value,
    pair,
  }));
}

/**
 * The text with its mapping `section` edited.
 *
 * @param entries of `section`, those that the edits name.
 */
export function editSection(
  text: string,
  section: YAMLMap,
  entries: readonly Entry[],
  edits: SectionEdits,
): string {
  const changes = section.flow === true ? [rewritten(section, entries, edits)] : edited(text, entries, edits);
  return changes
    .sort((a, b) => b.start - a.start)
    .reduce(
      (result, { start, end, text: piece }) => result.slice(0, start) + piece + result.slice(end),
      text,
    );
}

/** Lines of a block mapping, one by one. */
function edited(text: string, entries: readonly Entry[], { changed, added }: SectionEdits): TextEdit[] {
  const result: TextEdit[] = [];
  for (const entry of entries) {
    const change = changed.get(entry);
    if (change === undefined) continue;
    const [keyStart, keyEnd] = rangeOf(entry.pair.key)!;
    const [valueStart, valueEnd] = rangeOf(entry.pair.value) ?? [keyEnd + 1, keyEnd + 1];
    if (change === null) {
      result.push({ start: lineStart(text, keyStart), end: lineEnd(text, valueEnd), text: "" });
      continue;
    }
    if (change.key !== entry.key) result.push({ start: keyStart, end: keyEnd, text: change.key });
    if (change.value === entry.value) continue;
    const gap = valueStart === keyEnd + 1 ? " " : "";
    result.push({ start: valueStart, end: valueEnd, text: gap + scalarText(change.value) });
  }
  if (added.length === 0) return result;
  const { pair } = entries.at(-1)!;
  const [keyStart, keyEnd] = rangeOf(pair.key)!;
  const indent = text.slice(lineStart(text, keyStart), keyStart);
  const at = lineEnd(text, (rangeOf(pair.value) ?? [0, keyEnd + 1])[1]);
  const lines = added.map(([key, value]) => `${indent}${key}: ${scalarText(value)}\n`).join("");
  result.push({ start: at, end: at, text: text[at - 1] === "\n" ? lines : `\n${lines}` });
  return result;
}

/** A mapping in braces as a whole. */
function rewritten(section: YAMLMap, entries: readonly Entry[], edits: SectionEdits): TextEdit {
  const kept = entries.flatMap((entry): (readonly [string, unknown])[] => {
    const change = edits.changed.get(entry);
    if (change === null) return [];
    return [change === undefined ? [entry.key, entry.value] : [change.key, change.value]];
  });
  const words = [...kept, ...edits.added].map(([key, value]) => `${key}: ${scalarText(value)}`);
  const [start, end] = rangeOf(section)!;
  return { start, end, text: `{ ${words.join(", ")} }` };
}

/** JSON is YAML. */
function scalarText(value: unknown): string {
  return typeof value === "string" && /^[A-Z][A-Z_]*$/.test(value) ? value : JSON.stringify(value ?? null);
}

/** First and last position of a node's own text; nothing for a value that is not there. */
function rangeOf(node: unknown): readonly [number, number] | undefined {
  const range = (node as { readonly range?: readonly [number, number, number] | null } | null)?.range;
  return range == null || range[0] === range[1] ? undefined : [range[0], range[1]];
}

function lineStart(text: string, at: number): number {
  return text.lastIndexOf("\n", at - 1) + 1;
}

/** Position after the line break. */
function lineEnd(text: string, at: number): number {
  // A value in several lines ends behind its last line break.
  if (text[at - 1] === "\n") return at;
  const end = text.indexOf("\n", at);
  return end < 0 ? text.length : end + 1;
}

/**
 * Text in aligned columns, for help, reports and summaries.
 *
 * @module
 */

/** How a table is laid out. */
export interface TextTableOptions {
  /** Side of each column's text; `"left"` where absent. */
  readonly align?: readonly ("left" | "right")[];
  /** Column titles, underlined. */
  readonly header?: readonly string[];
  /** Spaces before every line. Default 0. */
  readonly indent?: number;
}

/**
 * Lines of a table, two spaces between columns, nothing after the last text of a line. Rows may have fewer cells than
 * others. Width counts code points.
 *
 * @example
 * textTable([["loss", "2.31"], ["steps", "300"]], { align: ["left", "right"] })
 * // ["loss   2.31", "steps   300"]
 */
export function textTable(
  rows: readonly (readonly string[])[],
  options: TextTableOptions = {},
): readonly string[] {
  const { align = [], header, indent = 0 } = options;
  const all = header === undefined ? rows : [header, ...rows];
  const columns = Math.max(0, ...all.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, c) =>
    Math.max(0, ...all.map((row) => width(row[c] ?? ""))),
  );
  const ruled = header === undefined ? rows : [header, widths.map((size) => "-".repeat(size)), ...rows];
  return ruled.map((row) => {
    const cells = row.map((cell, c) => {
      const fill = " ".repeat(widths[c]! - width(cell));
      return align[c] === "right" ? fill + cell : cell + fill;
    });
    return (" ".repeat(indent) + cells.join("  ")).trimEnd();
  });
}

function width(text: string): number {
  return [...text].length;
}

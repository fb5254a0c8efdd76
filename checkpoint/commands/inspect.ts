/**
 * `inspect`: what is in a checkpoint, and who holds it.
 *
 * @module
 */
import type { CommandSpec } from "../../core/contracts/command.ts";
import { STORED_DTYPES } from "../../core/contracts/dtype.ts";
import { formatCount } from "../../core/runtime/format.ts";
import { textTable } from "../../core/runtime/text-table.ts";
import { volume } from "../boxes.ts";
import { findSource } from "./find-source.ts";
import { cutOf, fileSymbol, onGround, shardBar } from "./shard-map.ts";
import type { CheckpointSource, SourceTensor } from "./source.ts";
import { printable, shorten, sizeText, terminalWidth, useColour } from "./terminal.ts";

/** Columns of the map. */
const MAX_BAR = 32;
const MIN_BAR = 8;
/** Files that are listed, as many as there are signs. */
const MAX_FILES = 62;
/** Columns between cells. */
const GAP = 2;

/** Shows a checkpoint's tensors, values and files. */
export const inspectCommand: CommandSpec = {
  summary: "shows what is in a checkpoint or weights file, and which file holds what",
  positionals: "SRC",
  options: {
    color: {
      type: "string",
      choices: ["auto", "always", "never"],
      default: "auto",
      description: "colours of the map",
    },
  },
  run: async ({ registry, options, positionals, print }) => {
    const [location] = positionals as [string];
    const source = await (await findSource(registry, location)).open();
    try {
      if (options.json === true) print(JSON.stringify(describe(source)));
      else for (const line of report(source, terminalWidth(), useColour(String(options.color)))) print(line);
      return 0;
    } finally {
      await source.close();
    }
  },
};

/** All that `--json` prints. */
function describe(source: CheckpointSource): unknown {
  const { format, location, step, worldSize, files, rankValues, leftOut } = source;
  return {
    format,
    location,
    step,
    worldSize,
    files,
    tensors: source.tensors.map((tensor) => ({
      name: tensor.name,
      dtype: tensor.dtype,
      shape: tensor.shape,
      bytes: bytesOf(tensor),
      chunks: tensor.chunks.map(({ offsets, sizes, file }) => ({ offsets, sizes, file: files[file]!.name })),
    })),
    values: Object.fromEntries(source.values.map(({ name, value }) => [name, value])),
    rankValues,
    leftOut,
  };
}

/** The lines for people, none wider than `width` (but for colours) as far as that can be. */
export function report(source: CheckpointSource, width: number, colour: boolean): readonly string[] {
  const { tensors, values, files, step, worldSize } = source;
  const bytes = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
  const elements = tensors.reduce((sum, { shape }) => sum + volume(shape), 0);
  const about = [
    source.format,
    ...(step === undefined ? [] : [`step ${step}`]),
    ...(worldSize === undefined ? [] : [`${worldSize} ${worldSize === 1 ? "rank" : "ranks"}`]),
    `${tensors.length} tensors`,
    `${formatCount(elements)} elements`,
    sizeText(bytes),
  ];
  const lines = [source.location, ...wrapped(about, width), "", ...fileLines(source, width, colour)];
  lines.push("", ...tensorLines(tensors, width, colour));
  if (files.length > 1)
    lines.push(
      "",
      shorten("each cell is a stretch of the tensor, in the sign of the file that holds it", width),
    );
  if (values.length > 0 || source.rankValues.some((own) => Object.keys(own).length > 0))
    lines.push("", ...valueLines(source, width));
  for (const { name, reason } of source.leftOut)
    lines.push("", shorten(printable(`not carried: ${name}: ${reason}`), width));
  return lines;
}

/** Facts in lines of at most `width`. */
function wrapped(facts: readonly string[], width: number): readonly string[] {
  const lines: string[] = [];
  for (const fact of facts) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 2 + fact.length < width)
      lines[lines.length - 1] = `${last}, ${fact}`;
    else lines.push(fact);
  }
  return lines;
}

/** The files with their signs; of very many the first ones. */
function fileLines({ files }: CheckpointSource, width: number, colour: boolean): readonly string[] {
  const shown = files.slice(0, MAX_FILES);
  const sizes = shown.map(({ bytes }) => sizeText(bytes));
  const room = width - 1 - 2 * GAP - Math.max(0, ...sizes.map((size) => size.length));
  const rows = shown.map(({ name }, i) => [fileSymbol(i), shorten(printable(name), room), sizes[i]!]);
  const lines = textTable(rows, { align: ["left", "left", "right"] }).map(
    (line, i) => onGround(line.slice(0, 1), i, colour) + line.slice(1),
  );
  return files.length > shown.length ? [...lines, `and ${files.length - shown.length} more files`] : lines;
}

/** One line a tensor where there is room, two in a narrow terminal. */
function tensorLines(tensors: readonly SourceTensor[], width: number, colour: boolean): readonly string[] {
  const facts = tensors.map((tensor) => [tensor.dtype, `[${tensor.shape.join(", ")}]`, cutOf(tensor)]);
  const factsWidth = [0, 1, 2].reduce(
    (sum, c) => sum + GAP + Math.max(0, ...facts.map((row) => row[c]!.length)),
    0,
  );
  const longest = Math.max(0, ...tensors.map(({ name }) => [...name].length));
  const room = width - factsWidth - GAP;
  if (room >= Math.min(longest, 24) + MIN_BAR) {
    const bar = Math.max(MIN_BAR, Math.min(MAX_BAR, room - longest));
    const rows = tensors.map(({ name }, i) => [shorten(printable(name), room - bar), ...facts[i]!]);
    const lines = padded(textTable(rows));
    return lines.map((line, i) => `${line}  ${shardBar(tensors[i]!, bar, colour)}`);
  }
  return tensors.flatMap((tensor, i) => {
    const bar = Math.max(MIN_BAR, Math.min(MAX_BAR, width - 2));
    return [
      shorten(printable(tensor.name), width),
      `  ${shorten(facts[i]!.join(" "), width - 2)}`,
      `  ${shardBar(tensor, bar, colour)}`,
    ];
  });
}

/** Lines of one length, so that what is put behind them stands in a column. */
function padded(lines: readonly string[]): readonly string[] {
  const longest = Math.max(0, ...lines.map((line) => [...line].length));
  return lines.map((line) => line + " ".repeat(longest - [...line].length));
}

function valueLines({ values, rankValues }: CheckpointSource, width: number): readonly string[] {
  const rows = values.map(({ name, value }) => [name, JSON.stringify(value)] as const);
  for (const [rank, own] of rankValues.entries()) {
    for (const [name, value] of Object.entries(own))
      rows.push([`rank ${rank}: ${name}`, JSON.stringify(value)]);
  }
  return rows.map(([name, value]) => shorten(printable(`${name} = ${value}`), width));
}

function bytesOf({ shape, dtype }: SourceTensor): number {
  return volume(shape) * STORED_DTYPES[dtype].bytes;
}

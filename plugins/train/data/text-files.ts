/**
 * Text files below a path, in an order that depends on names alone.
 *
 * @module
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { join, resolve, sep } from "node:path";
import { ConfigError } from "../../../core/contracts/errors.ts";

/** Which files of a folder count as text. */
export interface TextFileFilter {
  /** Endings of names, with their dots; `.d.ts` is one. */
  readonly extensions: readonly string[];
  /** Endings that are left out all the same. */
  readonly exclude?: readonly string[];
  /** Larger files are left out. */
  readonly maxBytes: number;
}

/** What a folder contributes unless told otherwise: sources and prose, not data. */
const TEXT_FILES: TextFileFilter = {
  extensions: [".ts", ".mts", ".cts", ".tsx", ".js", ".mjs", ".cjs", ".jsx", ".py", ".md", ".txt"],
  maxBytes: 4 * 2 ** 20,
};

/**
 * Contents of the text files at `path`. A file is taken whatever its name and size. In a folder, at any depth, those
 * that the filter lets through are taken, in the order of their names; hidden entries, symbolic links and binary files
 * (with a NUL byte) are left out, and so is `node_modules`, unless `path` lies in one.
 *
 * @param option what gave the path, for messages, for example `--data`.
 * @throws ConfigError naming the option when there is nothing at `path`, it cannot be read, or it is one binary file.
 */
export async function readTextFiles(
  path: string,
  option: string,
  filter: TextFileFilter = TEXT_FILES,
): Promise<readonly Uint8Array[]> {
  try {
    if ((await stat(path)).isDirectory()) return await readFolder(path, filter);
    const bytes = await readFile(path);
    if (isText(bytes)) return [bytes];
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why =
      code === "ENOENT" ? "which does not exist" : `which cannot be read (${code ?? String(error)})`;
    throw new ConfigError(`cannot use ${option}: given ${JSON.stringify(path)}, ${why}`, { cause: error });
  }
  throw new ConfigError(
    `cannot use ${option}: given binary file ${JSON.stringify(path)}, allowed are text files`,
  );
}

async function readFolder(path: string, filter: TextFileFilter): Promise<readonly Uint8Array[]> {
  const inModules = resolve(path).split(sep).includes("node_modules");
  const documents: Uint8Array[] = [];
  for (const file of await listFiles(path, inModules)) {
    if (!endsWithAny(file, filter.extensions) || endsWithAny(file, filter.exclude ?? [])) continue;
    if ((await stat(file)).size > filter.maxBytes) continue;
    const bytes = await readFile(file);
    if (isText(bytes)) documents.push(bytes);
  }
  return documents;
}

/** Files below a folder, depth first, each folder's entries in the order of UTF-16 code units. */
async function listFiles(folder: string, inModules: boolean): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const files: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith(".") || (entry.name === "node_modules" && !inModules)) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) files.push(...(await listFiles(path, inModules)));
    else if (entry.isFile()) files.push(path);
  }
  return files;
}

function endsWithAny(file: string, endings: readonly string[]): boolean {
  return endings.some((ending) => file.endsWith(ending));
}

function isText(bytes: Uint8Array): boolean {
  return !bytes.includes(0);
}

/**
 * The project's source files and what they import, for the checks of this folder.
 *
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

/** Top of the checkout. */
export const ROOT: string = fileURLToPath(new URL("../../", import.meta.url));

/** Folders with the code that ships. */
export const SOURCE_FOLDERS: readonly string[] = ["core", "backends", "plugins", "checkpoint"];

/** Made by a program, or written in another language (AssemblyScript). */
const FOREIGN = /\.generated\.ts$|^(?:backends\/cpu\/wasm|core\/runtime\/half)\/assembly\//;

/** One import or re-export. */
export interface Import {
  readonly specifier: string;
  /** Target relative to the root, for relative specifiers. */
  readonly path: string | undefined;
  readonly form: "value" | "type" | "dynamic";
}

/** One file. */
export interface SourceFile {
  /** Relative to the root, with `/`. */
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

/** All TypeScript files below folders, sorted by path; generated ones are left out. */
export function sourceFiles(folders: readonly string[]): readonly SourceFile[] {
  return folders
    .flatMap((folder) => listFiles(folder))
    .filter((path) => path.endsWith(".ts") && !FOREIGN.test(path))
    .sort()
    .map(readSource);
}

/** One file with its imports. */
export function readSource(path: string): SourceFile {
  const text = readFileSync(join(ROOT, path), "utf8");
  return { path, text, imports: importsOf(path, text) };
}

/** Imports of a source text that lies at `path`; those within comments do not count. */
export function importsOf(path: string, source: string): readonly Import[] {
  const text = source.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const imports: Import[] = [];
  const add = (specifier: string, form: Import["form"], relative = specifier.startsWith(".")) => {
    imports.push({ specifier, form, path: relative ? normalize(join(dirname(path), specifier)) : undefined });
  };
  for (const [, clause, specifier] of text.matchAll(/^(?:im|ex)port\s([^"';]*?)\sfrom\s+"([^"]+)"/gm)) {
    add(specifier!, isTypeOnly(clause!) ? "type" : "value");
  }
  for (const [, specifier] of text.matchAll(/^import\s+"([^"]+)"/gm)) add(specifier!, "value");
  for (const [, specifier] of text.matchAll(/\bimport\(\s*"([^"]+)"/g)) add(specifier!, "dynamic");
  // A worker's entry is loaded by its address, which is relative with or without a leading dot.
  for (const [, specifier] of text.matchAll(/new URL\(\s*"([^"]+\.ts)",\s*import\.meta\.url/g)) {
    add(specifier!, "dynamic", true);
  }
  return imports;
}

/** `type X`, `type { X }`, `{ type X, type Y }`. */
function isTypeOnly(clause: string): boolean {
  if (/^type\s/.test(clause)) return true;
  const named = /^\{([\s\S]*)\}$/.exec(clause.trim())?.[1];
  if (named === undefined) return false;
  const names = named.split(",").filter((name) => name.trim() !== "");
  return names.length > 0 && names.every((name) => /^\s*type\s/.test(name));
}

function listFiles(folder: string): readonly string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length).replaceAll("\\", "/"));
}

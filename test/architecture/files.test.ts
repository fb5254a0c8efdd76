import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { basename, dirname } from "node:path";
import { ROOT, readSource, SOURCE_FOLDERS, type SourceFile, sourceFiles } from "./sources.ts";

const SOURCES: readonly SourceFile[] = [...sourceFiles(SOURCE_FOLDERS), readSource("mod.ts")];
const ALL: readonly SourceFile[] = [...SOURCES, ...sourceFiles(["test"])];

/** What DESIGN lets stand at the top, beside dot files. */
const TOP: readonly string[] = [
  ...SOURCE_FOLDERS,
  "LICENSE",
  "README.md",
  "biome.json",
  "bun.lock",
  "deno.json",
  "deno.lock",
  "mod.ts",
  "package.json",
  "test",
  "tsconfig.json",
];
/** Made on a machine and ignored by git. */
const LOCAL: readonly string[] = ["node_modules", "runs"];

/** Names exported by their own declaration without a comment that ends right above it. */
function undocumented(text: string): readonly string[] {
  const lines = text.split("\n");
  const documented = new Set<string>();
  const missing = new Set<string>();
  for (const [i, line] of lines.entries()) {
    const name =
      /^export (?:abstract class|async function\*?|class|const|function\*?|interface|let|type)\s+(\w+)/.exec(
        line,
      )?.[1];
    if (name === undefined) continue;
    const before = lines[i - 1]?.trimEnd() ?? "";
    // Of overloads, the first carries the comment.
    if (before.endsWith("*/")) documented.add(name);
    else if (!documented.has(name)) missing.add(name);
  }
  return [...missing];
}

/** `new Error` and its built-in kinds thrown outright; the project's own classes are others. */
const PLAIN_ERROR = /\bnew Error\(|\bthrow new (?:Type|Range|Syntax|Eval|URI|Aggregate)?Error\(/;
/** Paths that only some machine has. */
const MACHINE_PATH = /(^|[^\w.\-/])\/(?:work|root|home|Users)\/\w/m;

const withoutComments = (text: string) => text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
const pathsWhere = (files: readonly SourceFile[], bad: (file: SourceFile) => boolean) =>
  files.filter(bad).map(({ path }) => path);

describe("source files", () => {
  test("have at most 600 lines, and few above 350", () => {
    const lines = ({ text }: SourceFile) => text.trimEnd().split("\n").length;
    expect(pathsWhere(ALL, (file) => lines(file) > 600)).toEqual([]);
    expect(pathsWhere(SOURCES, (file) => lines(file) > 350).length).toBeLessThanOrEqual(SOURCES.length * 0.1);
  });

  test("have kebab-case names, folders too", () => {
    const kebab = /^[a-z0-9]+(-[a-z0-9]+)*$/;
    const badly = ({ path }: SourceFile) => {
      const file = basename(path).replace(/(\.test|\.as)?\.ts$/, "");
      const folders = dirname(path) === "." ? [] : dirname(path).split("/");
      return ![...folders, file].every((name) => kebab.test(name));
    };
    expect(pathsWhere(ALL, badly)).toEqual([]);
  });

  test("open with what they are", () => {
    const header = /^(?:#!.*\n)?\/\*\*[\s\S]*?@module\b[\s\S]*?\*\//;
    expect(pathsWhere(SOURCES, ({ text }) => !header.test(text))).toEqual([]);
  });

  test("document every exported symbol", () => {
    expect(SOURCES.flatMap(({ path, text }) => undocumented(text).map((name) => `${path}: ${name}`))).toEqual(
      [],
    );
  });

  test("throw errors that a caller can tell apart", () => {
    expect(pathsWhere(SOURCES, ({ text }) => PLAIN_ERROR.test(withoutComments(text)))).toEqual([]);
  });

  test("name no path of a machine", () => {
    expect(pathsWhere(ALL, ({ text }) => MACHINE_PATH.test(text))).toEqual([]);
  });
});

describe("the checkout", () => {
  test("has nothing at its top but what belongs there", () => {
    const entries = readdirSync(ROOT).filter((name) => !name.startsWith(".") && !LOCAL.includes(name));
    expect(entries.filter((name) => !TOP.includes(name))).toEqual([]);
  });
});

describe("the check itself", () => {
  test("finds undocumented exports", () => {
    const text =
      "/** A. */\nexport const a = 1;\nexport function b(): void;\n\n/** C. */\nexport function c(x: 1): 1;\nexport function c(x: 2): 2;\n\nexport async function d() {}";
    expect(undocumented(text)).toEqual(["b", "d"]);
  });

  test("finds plain errors and machine paths, and only these", () => {
    for (const text of ["throw new Error('x')", "return new Error(x)", "throw new TypeError(x)"]) {
      expect(PLAIN_ERROR.test(text)).toBe(true);
    }
    expect(PLAIN_ERROR.test("throw new ShapeError(x)")).toBe(false);
    const folder = "home";
    for (const text of [`"/${folder}/me"`, `in /${folder}/me`, `/${folder}/me`]) {
      expect(MACHINE_PATH.test(text)).toBe(true);
    }
    for (const text of ["a/root/b", "https://x.org/home/y", "../work/x"])
      expect(MACHINE_PATH.test(text)).toBe(false);
  });
});

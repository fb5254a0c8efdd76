/**
 * Code in documents, run as a reader would run it.
 *
 * A section's blocks are taken in order. `sh` is run; `text` is what that printed: every line shown was printed, in this
 * order (`...` at the end stands for the rest of a line), and every warning or error that was printed is shown. A block
 * with a file name is written to that file, or, behind a command that made the file, is what the file must hold.
 *
 * @module
 */
import { expect } from "bun:test";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** A fenced block. */
export interface CodeBlock {
  /** The heading above it, without `#`. */
  readonly section: string;
  readonly language: string;
  readonly file: string | undefined;
  readonly text: string;
}

/** The fenced blocks of a document, in order. */
export function codeBlocks(markdown: string): readonly CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let section = "";
  let open:
    | { readonly language: string; readonly file: string | undefined; readonly from: number }
    | undefined;
  const lines = markdown.split("\n");
  for (const [i, line] of lines.entries()) {
    if (!line.startsWith("```")) {
      if (open === undefined && /^#+ /.test(line)) section = line.replace(/^#+ /, "");
      continue;
    }
    if (open === undefined) {
      const [language = "", file] = line.slice(3).split(" ");
      open = { language, file, from: i + 1 };
    } else {
      const { from, ...named } = open;
      blocks.push({ section, ...named, text: lines.slice(from, i).join("\n") });
      open = undefined;
    }
  }
  return blocks;
}

/** A folder that looks like a checkout, but for what is written in it. */
export function asCheckout(folder: string): void {
  for (const name of ["mod.ts", "test"]) symlinkSync(join(ROOT, name), join(folder, name));
  for (const name of ["node_modules", "bin"]) mkdirSync(join(folder, name));
  for (const name of ["@types", "@webgpu", "bun-types"]) {
    symlinkSync(join(ROOT, "node_modules", name), join(folder, "node_modules", name));
  }
  // The package knows itself by its name.
  symlinkSync(ROOT, join(folder, "node_modules", "fsdp"));
  symlinkSync(process.execPath, join(folder, "bin", "bun"));
}

/** What the compiler, as strict as it is with the project, says of TypeScript files in such a folder. */
export async function typeErrors(folder: string): Promise<string> {
  const config = { extends: join(ROOT, "tsconfig.json"), include: ["*.ts"], exclude: ["mod.ts"] };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
  const { lines } = await runShell(folder, `bun "${join(ROOT, "node_modules/typescript/bin/tsc")}" --noEmit`);
  return lines.join("\n");
}

/** What a block's commands printed. */
interface Printed {
  readonly code: number;
  readonly lines: readonly string[];
  /** Of them, those on stderr. */
  readonly errors: readonly string[];
}

/** Runs shell commands in such a folder. */
export async function runShell(folder: string, commands: string): Promise<Printed> {
  const child = Bun.spawn(["bash", "-e", "-u", "-o", "pipefail", "-c", commands], {
    cwd: folder,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, PATH: `${join(folder, "bin")}${delimiter}${process.env.PATH}` },
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const lines = (text: string): string[] => text.split("\n").filter((line) => line !== "");
  return { code, lines: [...lines(stdout), ...lines(stderr)], errors: lines(stderr) };
}

/**
 * Runs a section's blocks in a folder of `asCheckout`, and checks that they do what the section shows.
 *
 * @param before commands that the document puts before every `sh` block.
 */
export async function runBlocks(folder: string, blocks: readonly CodeBlock[], before = ""): Promise<void> {
  for (const [i, { language, file, text }] of blocks.entries()) {
    if (file !== undefined) {
      const path = join(folder, file);
      if (existsSync(path)) expect(readFileSync(path, "utf8")).toBe(`${text}\n`);
      else writeFileSync(path, `${text}\n`);
    } else if (language === "sh") {
      const next = blocks[i + 1];
      const shown = next?.language === "text" ? next.text.split("\n") : [];
      expectShown(text, await runShell(folder, `${before}\n${text}`), shown);
    }
  }
}

function expectShown(commands: string, { code, lines, errors }: Printed, shown: readonly string[]): void {
  const says = (line: string, wanted: string): boolean =>
    wanted.endsWith("...") ? line.startsWith(wanted.slice(0, -3)) : line === wanted;
  const unshown = errors.filter((line) => !shown.some((wanted) => says(line, wanted)));
  const failed = shown.some((line) => line.startsWith("error: "));
  expect({ commands, code, unshown }).toEqual({ commands, code: failed ? 1 : 0, unshown: [] });
  let at = -1;
  const missing = shown.filter((wanted) => {
    const found = lines.findIndex((line, i) => i > at && says(line, wanted));
    if (found >= 0) at = found;
    return found < 0;
  });
  expect({ commands, missing, printed: missing.length === 0 ? [] : lines }).toEqual({
    commands,
    missing: [],
    printed: [],
  });
}

import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { join } from "node:path";
import {
  type Import,
  importsOf,
  ROOT,
  readSource,
  SOURCE_FOLDERS,
  type SourceFile,
  sourceFiles,
} from "./sources.ts";

const FILES: readonly SourceFile[] = [...sourceFiles(SOURCE_FOLDERS), readSource("mod.ts")];

/** What each part of `core` may import of `core`, beside itself. */
const BELOW: Readonly<Record<string, readonly string[]>> = {
  contracts: [],
  tensor: ["contracts"],
  nn: ["contracts", "tensor"],
  optim: ["contracts", "tensor", "nn"],
  engine: ["contracts", "tensor", "nn", "optim"],
  runtime: ["contracts", "tensor", "nn", "optim", "engine"],
};
/** Load by dynamic import, where they are used. */
const NATIVE = ["koffi", "webgpu"];

/** The part that a file belongs to: `core/tensor`, `backends/cpu`, `checkpoint`, `mod.ts`. */
function partOf(path: string): string {
  const [top, second] = path.split("/") as [string, string | undefined];
  return top === "checkpoint" || second === undefined ? top : `${top}/${second}`;
}

/** Whether DESIGN's directions let a file at `from` import one at `to`. */
function allowed(from: string, to: string): boolean {
  const [source, target] = [partOf(from), partOf(to)];
  if (source === target || source === "mod.ts") return true;
  if (!target.startsWith("core/")) return false;
  if (!source.startsWith("core/")) return true;
  return BELOW[source.slice("core/".length)]?.includes(target.slice("core/".length)) ?? false;
}

/** Each import that `bad` finds, as `from -> what`. */
function offenders(bad: (file: SourceFile, imported: Import) => boolean): readonly string[] {
  return FILES.flatMap((file) =>
    file.imports
      .filter((imported) => bad(file, imported))
      .map(({ specifier }) => `${file.path} -> ${specifier}`),
  );
}

/** Cycles of a graph, each once, as the path that closes it. */
function cycles(graph: ReadonlyMap<string, readonly string[]>): readonly string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (node: string, trail: readonly string[]): void => {
    const at = trail.indexOf(node);
    if (at >= 0) found.push([...trail.slice(at), node].join(" -> "));
    if (at >= 0 || done.has(node)) return;
    for (const next of graph.get(node) ?? []) visit(next, [...trail, node]);
    done.add(node);
  };
  for (const node of graph.keys()) visit(node, []);
  return found;
}

describe("the import graph", () => {
  test("points one way", () => {
    expect(offenders((file, { path }) => path !== undefined && !allowed(file.path, path))).toEqual([]);
  });

  test("has no cycle of values", () => {
    const edges = (file: SourceFile) =>
      file.imports.flatMap(({ form, path }) => (form === "value" && path !== undefined ? [path] : []));
    expect(cycles(new Map(FILES.map((file) => [file.path, edges(file)])))).toEqual([]);
  });

  test("leads to files that exist, by their whole names", () => {
    const missing = ({ path }: Import) =>
      path !== undefined && !(path.endsWith(".ts") && existsSync(join(ROOT, path)));
    expect(offenders((_, imported) => missing(imported))).toEqual([]);
  });

  test("names built-in modules with node:, and other packages only if they are dependencies", () => {
    const listed = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const { devDependencies } = listed;
    const dependencies = { ...listed.dependencies, ...listed.optionalDependencies };
    const foreign = (file: SourceFile, { specifier, path }: Import) => {
      if (path !== undefined) return false;
      if (specifier.startsWith("node:")) return !builtinModules.includes(specifier.slice("node:".length));
      const [scope, name] = specifier.split("/");
      // A build script runs in a checkout only.
      const known = file.path.endsWith("/build.ts") ? { ...dependencies, ...devDependencies } : dependencies;
      return !((specifier.startsWith("@") ? `${scope}/${name}` : scope!) in known);
    };
    expect(offenders(foreign)).toEqual([]);
  });

  test("reaches native packages by dynamic import only", () => {
    const isNative = ({ specifier, form }: Import) => form === "value" && NATIVE.includes(specifier);
    expect(offenders((_, imported) => isNative(imported))).toEqual([]);
  });

  test("keeps the system out of core below runtime", () => {
    const system = (file: SourceFile, { specifier }: Import) =>
      specifier.startsWith("node:") && file.path.startsWith("core/") && partOf(file.path) !== "core/runtime";
    expect(offenders(system)).toEqual([]);
  });
});

describe("the check itself", () => {
  test("reads every form of import, and none in a comment", () => {
    const text = `
/** import { no } from "./no.ts"; */
// import "./neither.ts";
import { type A, b } from "./b.ts";
import type { C } from "../c.ts";
import { type D, type E } from "./d.ts";
import f, {
  g,
} from "node:fs";
import "./side.ts";
export * from "./all.ts";
export type { H } from "./h.ts";
const i = await import("koffi");
const j = new URL("worker.ts", import.meta.url);
const k = "import { no } from './no.ts'";
`;
    expect(
      importsOf("core/x/y.ts", text).map(({ specifier, path, form }) => [form, path ?? specifier]),
    ).toEqual([
      ["value", "core/x/b.ts"],
      ["type", "core/c.ts"],
      ["type", "core/x/d.ts"],
      ["value", "node:fs"],
      ["value", "core/x/all.ts"],
      ["type", "core/x/h.ts"],
      ["value", "core/x/side.ts"],
      ["dynamic", "koffi"],
      ["dynamic", "core/x/worker.ts"],
    ]);
  });

  test("tells good directions from bad ones", () => {
    const verdicts: readonly [string, string, boolean][] = [
      ["core/tensor/a.ts", "core/contracts/b.ts", true],
      ["core/contracts/a.ts", "core/tensor/b.ts", false],
      ["core/nn/a.ts", "core/optim/b.ts", false],
      ["core/optim/a.ts", "core/nn/b.ts", true],
      ["core/engine/a.ts", "core/optim/b.ts", true],
      ["core/engine/a.ts", "core/runtime/b.ts", false],
      ["core/runtime/a.ts", "backends/cpu/b.ts", false],
      ["backends/cpu/a.ts", "core/runtime/b.ts", true],
      ["backends/cpu/a.ts", "backends/cpu/kernels/b.ts", true],
      ["backends/cpu/a.ts", "backends/webgpu/b.ts", false],
      ["plugins/train/a.ts", "plugins/fsdp2/b.ts", false],
      ["plugins/train/a.ts", "checkpoint/b.ts", false],
      ["checkpoint/stores/a.ts", "checkpoint/b.ts", true],
      ["checkpoint/a.ts", "backends/collectives/b.ts", false],
      ["core/runtime/a.ts", "mod.ts", false],
      ["mod.ts", "plugins/train/b.ts", true],
    ];
    for (const [from, to, verdict] of verdicts)
      expect([from, to, allowed(from, to)]).toEqual([from, to, verdict]);
  });

  test("finds cycles", () => {
    const graph = new Map([
      ["a", ["b", "c"]],
      ["b", ["c"]],
      ["c", ["a"]],
      ["d", ["a"]],
    ]);
    expect(cycles(graph)).toEqual(["a -> b -> c -> a"]);
    expect(cycles(new Map([["a", ["b"]]]))).toEqual([]);
  });

  test("looks at a project, not at an empty folder", () => {
    for (const folder of SOURCE_FOLDERS)
      expect(FILES.some(({ path }) => path.startsWith(`${folder}/`))).toBe(true);
  });
});

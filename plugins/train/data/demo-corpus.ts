/**
 * Text that every checkout has: this project's sources and pages, and the type declarations and Markdown of the
 * packages that it depends on. So the demo trains without a download.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { readFile, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { type Corpus, makeCorpus } from "./corpus.ts";
import { readTextFiles, type TextFileFilter } from "./text-files.ts";

const OWN_PATHS = ["README.md", "mod.ts", "core", "backends", "plugins", "checkpoint", "test"];
const OWN_FILES: TextFileFilter = {
  extensions: [".ts", ".md"],
  exclude: [".generated.ts"],
  maxBytes: 2 ** 20,
};
const PACKAGE_FILES: TextFileFilter = { extensions: [".d.ts", ".md"], maxBytes: 2 ** 20 };

/** What is read of a `package.json`. Optional dependencies differ between machines and do not count. */
const Manifest = v.object({
  dependencies: v.optional(v.record(v.string(), v.string()), {}),
  devDependencies: v.optional(v.record(v.string(), v.string()), {}),
});

/**
 * The demo's corpus. The same for the same sources and the same installed versions, whoever installed them.
 *
 * @param root URL of a module at the top of the checkout.
 * @param maxBytes bound on the text; the project's own comes first, then packages' documents in the order of their
 * hashes: a fair sample of all packages.
 * @throws ConfigError when there is no text.
 */
export async function demoCorpus(root: string, maxBytes: number = 6 * 2 ** 20): Promise<Corpus> {
  const top = dirname(fileURLToPath(root));
  const own: Uint8Array[] = [];
  for (const path of OWN_PATHS) own.push(...(await readIfThere(join(top, path), OWN_FILES)));
  const foreign: Uint8Array[] = [];
  for (const folder of await packageFolders(top)) foreign.push(...(await readIfThere(folder, PACKAGE_FILES)));

  const documents: Uint8Array[] = [];
  let bytes = 0;
  for (const document of [...own, ...inHashOrder(foreign)]) {
    if (bytes + document.length > maxBytes) continue;
    documents.push(document);
    bytes += document.length;
  }
  if (documents.length > 0) return makeCorpus(documents);
  throw new ConfigError(
    `cannot make the demo's corpus: given ${JSON.stringify(root)}, which has no sources beside it`,
  );
}

/** Real folders of all packages that the one at `top` needs, directly or not. */
async function packageFolders(top: string): Promise<readonly string[]> {
  const { dependencies, devDependencies } = await readManifest(top);
  const folders = new Set<string>();
  const queue = Object.keys({ ...dependencies, ...devDependencies }).map((name) => ({ name, from: top }));
  // The queue grows while it is walked.
  for (const { name, from } of queue) {
    const folder = await findPackage(name, from);
    if (folder === undefined || folders.has(folder)) continue;
    folders.add(folder);
    const needed = Object.keys((await readManifest(folder)).dependencies);
    queue.push(...needed.map((dependency) => ({ name: dependency, from: folder })));
  }
  return [...folders];
}

/** Finds a package as Node does, so that flat, nested and linked layouts give the same ones. */
async function findPackage(name: string, from: string): Promise<string | undefined> {
  for (let folder = from; ; folder = dirname(folder)) {
    try {
      return await realpath(join(folder, "node_modules", name));
    } catch {
      if (folder === dirname(folder)) return undefined;
    }
  }
}

async function readManifest(folder: string): Promise<v.InferOutput<typeof Manifest>> {
  try {
    return v.parse(Manifest, JSON.parse(await readFile(join(folder, "package.json"), "utf8")));
  } catch {
    return { dependencies: {}, devDependencies: {} };
  }
}

/** The demo takes what there is: an installed package has no tests, a bare checkout no packages. */
async function readIfThere(path: string, filter: TextFileFilter): Promise<readonly Uint8Array[]> {
  try {
    return await readTextFiles(path, "the demo", filter);
  } catch (error) {
    if (error instanceof ConfigError) return [];
    throw error;
  }
}

function inHashOrder(documents: readonly Uint8Array[]): readonly Uint8Array[] {
  const hashed = documents.map((document) => ({
    document,
    hash: createHash("sha256").update(document).digest("hex"),
  }));
  return hashed.sort((a, b) => (a.hash < b.hash ? -1 : 1)).map(({ document }) => document);
}

/**
 * A file system in memory that knows what would survive a loss of power: a file's bytes as of its last sync, and of a
 * folder's entries those of its last sync, or all (systems may write them early, and never have to).
 *
 * @module
 */
import { basename, dirname } from "node:path";
import type { FileSystem } from "../../checkpoint/stores/file-system.ts";

/** What of the entries that were never synced is there after the loss. */
export type Survival = "synced entries" | "all entries";

interface Node {
  readonly folder: boolean;
  content: Uint8Array;
  synced: Uint8Array;
  entries: Map<string, Node>;
  syncedEntries: Map<string, Node>;
}

/** A model with one empty folder, `/`. */
export interface ModelFileSystem {
  readonly fs: FileSystem;
  /** Operations so far that changed something. */
  readonly operations: number;
  /** What is there after the loss. */
  crash(survival: Survival): ModelFileSystem;
}

/** Options of the model. */
export interface ModelOptions {
  /** Operations after which the power is gone: all that follow fail. Default: never. */
  readonly limit?: number;
  /** Whether syncs do nothing. Default false. */
  readonly ignoreSync?: boolean;
}

const EMPTY = new Uint8Array(0);

function newNode(folder: boolean): Node {
  return { folder, content: EMPTY, synced: EMPTY, entries: new Map(), syncedEntries: new Map() };
}

/** A fresh model. */
export function modelFileSystem(options: ModelOptions = {}, root: Node = newNode(true)): ModelFileSystem {
  const { limit = Number.POSITIVE_INFINITY, ignoreSync = false } = options;
  let operations = 0;
  const fail = (code: string, path: string): Error => Object.assign(new Error(`${code}: ${path}`), { code });
  /** Counts an operation that changes something. */
  const act = (): void => {
    if (operations >= limit) throw fail("EIO", "the power is gone");
    operations += 1;
  };
  const find = (path: string): Node => {
    let node = root;
    for (const part of path.split("/").filter(Boolean)) {
      const next = node.entries.get(part);
      if (next === undefined) throw fail(node.folder ? "ENOENT" : "ENOTDIR", path);
      node = next;
    }
    return node;
  };
  const statOf = ({ folder, content }: Node) => ({
    isDirectory: () => folder,
    isFile: () => !folder,
    size: content.length,
    mtimeMs: Date.now(),
  });
  const put = (path: string, node: Node): void => {
    const { entries } = find(dirname(path));
    if (entries.has(basename(path))) throw fail("EEXIST", path);
    entries.set(basename(path), node);
  };
  const handle = (node: Node) => ({
    stat: async () => statOf(node),
    async read(target: Uint8Array, offset: number, length: number, position: number) {
      const bytes = node.content.subarray(position, position + length);
      target.set(bytes, offset);
      return { bytesRead: bytes.length };
    },
    async write(bytes: Uint8Array, offset: number, length: number, position: number) {
      act();
      const content = new Uint8Array(Math.max(node.content.length, position + length));
      content.set(node.content);
      content.set(bytes.subarray(offset, offset + length), position);
      node.content = content;
      return { bytesWritten: length };
    },
    async sync() {
      act();
      if (ignoreSync) return;
      node.synced = node.content;
      node.syncedEntries = new Map(node.entries);
    },
    datasync: async () => undefined,
    close: async () => undefined,
  });
  const fs = {
    async link(from: string, to: string) {
      act();
      put(to, find(from));
    },
    lstat: async (path: string) => statOf(find(path)),
    async mkdir(path: string) {
      act();
      put(path, newNode(true));
    },
    async open(path: string, flags: string | number) {
      if (typeof flags === "number") return handle(find(path));
      act();
      const node = newNode(false);
      put(path, node);
      return handle(node);
    },
    async readdir(path: string, wanted?: { withFileTypes: boolean }) {
      const all = [...find(path).entries];
      return all.map(([name, node]) => (wanted?.withFileTypes ? { name, ...statOf(node) } : name));
    },
    readFile: async (path: string) => new TextDecoder().decode(find(path).content),
    async rename(from: string, to: string) {
      act();
      const node = find(from);
      const { entries } = find(dirname(to));
      if ((entries.get(basename(to))?.entries.size ?? 0) > 0) throw fail("ENOTEMPTY", to);
      find(dirname(from)).entries.delete(basename(from));
      entries.set(basename(to), node);
    },
    async rm(path: string, how?: { force?: boolean }) {
      act();
      if (!find(dirname(path)).entries.delete(basename(path)) && !how?.force) throw fail("ENOENT", path);
    },
    async writeFile(path: string, text: string) {
      act();
      put(path, { ...newNode(false), content: new TextEncoder().encode(text) });
    },
  };
  const after = (node: Node, survival: Survival): Node => {
    const kept = survival === "all entries" ? node.entries : node.syncedEntries;
    const entries = new Map([...kept].map(([name, child]) => [name, after(child, survival)]));
    return { ...node, content: node.synced, entries, syncedEntries: new Map(entries) };
  };
  return {
    fs: fs as unknown as FileSystem,
    get operations() {
      return operations;
    },
    crash: (survival) => modelFileSystem({}, after(root, survival)),
  };
}

/**
 * A checkpoint store in memory: for tests, and for ranks of one event loop. `memory:NAME` is the same store wherever in
 * the process it is opened.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import type { CheckpointStore, StoreTransaction, StoreWriter } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { checkRange, checkStoreName, MANIFEST_FILE } from "./names.ts";

type Folder = Map<string, Uint8Array>;

interface OpenFolder {
  readonly name: string;
  readonly files: Folder;
  /** Files begun and not closed or aborted; their names are taken. */
  readonly writing: Set<string>;
}

const stores = new Map<string, CheckpointStore>();

/** The store of a location `memory:NAME`; `undefined` for others. */
export function openMemoryStore(location: string): CheckpointStore | undefined {
  if (!location.startsWith("memory:")) return undefined;
  let store = stores.get(location);
  if (store === undefined) {
    store = memoryStore(location);
    stores.set(location, store);
  }
  return store;
}

/** A fresh, empty store. */
export function memoryStore(location: string): CheckpointStore {
  const committed = new Map<string, Folder>();
  const open = new Map<string, OpenFolder>();

  const folderOf = (name: string): Folder => {
    checkStoreName("checkpoint", name);
    const folder = committed.get(name);
    if (folder === undefined) throw new CheckpointError(`checkpoint ${name}: not in ${location}`);
    return folder;
  };
  const fileOf = (name: string, file: string): Uint8Array => {
    checkStoreName("file", file);
    const bytes = folderOf(name).get(file);
    if (bytes === undefined) throw new CheckpointError(`checkpoint ${name}: no file ${file}`);
    return bytes;
  };

  const transaction = (id: string): StoreTransaction => {
    const current = (): OpenFolder => {
      const folder = open.get(id);
      if (folder === undefined)
        throw new CheckpointError(`save transaction ${id}: it has ended or never began`);
      return folder;
    };
    const fileIn = (file: string): Uint8Array => {
      const { name, files } = current();
      const bytes = files.get(file);
      if (bytes === undefined) throw new CheckpointError(`save of ${name}: no file ${file}`);
      return bytes;
    };
    return {
      id,
      async create(file: string): Promise<StoreWriter> {
        checkStoreName("file", file);
        const folder = current();
        if (folder.files.has(file) || folder.writing.has(file)) {
          throw new CheckpointError(`save of ${folder.name}: file ${file} exists already`);
        }
        return memoryWriter(folder, file);
      },
      async read(file: string): Promise<Uint8Array> {
        return fileIn(file).slice();
      },
      async remove(file: string): Promise<void> {
        fileIn(file);
        current().files.delete(file);
      },
      async link(file: string, from: { readonly name: string; readonly file: string }): Promise<void> {
        checkStoreName("file", file);
        const { name, files } = current();
        if (files.has(file)) throw new CheckpointError(`save of ${name}: file ${file} exists already`);
        files.set(file, fileOf(from.name, from.file));
      },
      async commit(): Promise<void> {
        const { name, files } = current();
        if (!files.has(MANIFEST_FILE))
          throw new CheckpointError(`save of ${name}: it has no ${MANIFEST_FILE}`);
        if (committed.has(name))
          throw new CheckpointError(`save of ${name}: the name is taken in ${location}`);
        committed.set(name, files);
        open.delete(id);
      },
      async abort(): Promise<void> {
        open.delete(id);
      },
    };
  };

  return Object.freeze<CheckpointStore>({
    location,
    async begin(name: string): Promise<StoreTransaction> {
      checkStoreName("checkpoint", name);
      if (committed.has(name)) throw new CheckpointError(`save of ${name}: the name is taken in ${location}`);
      const id = randomUUID();
      open.set(id, { name, files: new Map(), writing: new Set() });
      return transaction(id);
    },
    async join(name: string, id: string): Promise<StoreTransaction> {
      if (open.get(id)?.name !== name) throw new CheckpointError(`save of ${name}: no transaction ${id}`);
      return transaction(id);
    },
    list: async () => [...committed.keys()].sort(),
    size: async (name: string, file: string) => fileOf(name, file).length,
    files: async (name: string) => [...folderOf(name).keys()].sort(),
    async read(name: string, file: string, begin: number, end: number): Promise<Uint8Array> {
      const bytes = fileOf(name, file);
      checkRange(file, begin, end, bytes.length);
      return bytes.slice(begin, end);
    },
    async delete(name: string): Promise<void> {
      folderOf(name);
      committed.delete(name);
    },
  });
}

function memoryWriter(folder: OpenFolder, file: string): StoreWriter {
  const parts: Uint8Array[] = [];
  folder.writing.add(file);
  const check = (): void => {
    if (!folder.writing.has(file)) throw new CheckpointError(`write of ${file}: it was closed or aborted`);
  };
  return {
    async write(bytes: Uint8Array): Promise<void> {
      check();
      parts.push(Uint8Array.from(bytes));
    },
    async close(): Promise<void> {
      check();
      folder.writing.delete(file);
      folder.files.set(file, concat(parts));
    },
    async abort(): Promise<void> {
      folder.writing.delete(file);
    },
  };
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

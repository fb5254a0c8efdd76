/**
 * A corpus for byte-level models: text files as one run of bytes, a small part of it held out for validation.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { readTextFiles } from "./text-files.ts";

/** Text to train on, bytes as tokens. */
export interface Corpus {
  /** Documents, each followed by `SEPARATOR`. */
  readonly train: Uint8Array;
  /** Likewise; about `HELD_OUT` of all bytes, no document of which is in `train`. */
  readonly heldOut: Uint8Array;
  /** Number of different documents. */
  readonly documents: number;
}

/** Byte after every document; text does not contain it. */
export const SEPARATOR = 0;
/** Share of the bytes that is held out. */
export const HELD_OUT = 0.05;

/**
 * The corpus of files and folders, in the order given; see `readTextFiles` for what a folder contributes.
 *
 * @param option what gave the paths, for messages.
 * @throws ConfigError naming the option when a path is missing or unreadable, or there is no text at all.
 */
export async function readCorpus(paths: readonly string[], option = "--data"): Promise<Corpus> {
  const documents: Uint8Array[] = [];
  for (const path of paths) documents.push(...(await readTextFiles(path, option)));
  const corpus = makeCorpus(documents);
  if (corpus.documents > 0) return corpus;
  const given = paths.map((path) => JSON.stringify(path)).join(", ");
  throw new ConfigError(`cannot use ${option}: given ${given || "nothing"}, which holds no text files`);
}

/**
 * Splits documents by their contents: of equal ones only the first counts (so that nothing held out is trained on), and
 * in the order of their hashes they are held out as long as these stay within `HELD_OUT` of all bytes. A corpus without
 * a document that small gives up the end of its last one instead.
 */
export function makeCorpus(documents: readonly Uint8Array[]): Corpus {
  const byHash = new Map<string, Uint8Array>();
  for (const document of documents) {
    if (document.length === 0) continue;
    const hash = createHash("sha256").update(document).digest("hex");
    if (!byHash.has(hash)) byHash.set(hash, document);
  }
  const all = [...byHash.values()];
  const allowed = HELD_OUT * totalBytes(all);
  const held = new Set<Uint8Array>();
  let bytes = 0;
  for (const hash of [...byHash.keys()].sort()) {
    const document = byHash.get(hash)!;
    if (bytes + document.length + 1 > allowed) continue;
    held.add(document);
    bytes += document.length + 1;
  }
  if (held.size === 0) return cutEnd(all, Math.floor(allowed));
  return {
    train: concatenate(all.filter((document) => !held.has(document))),
    heldOut: concatenate(all.filter((document) => held.has(document))),
    documents: all.length,
  };
}

function cutEnd(documents: readonly Uint8Array[], bytes: number): Corpus {
  const joined = concatenate(documents);
  const cut = joined.length - bytes;
  return { train: joined.slice(0, cut), heldOut: joined.slice(cut), documents: documents.length };
}

function concatenate(documents: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(totalBytes(documents)).fill(SEPARATOR);
  let offset = 0;
  for (const document of documents) {
    joined.set(document, offset);
    offset += document.length + 1;
  }
  return joined;
}

/** With separators. */
function totalBytes(documents: readonly Uint8Array[]): number {
  return documents.reduce((sum, document) => sum + document.length + 1, 0);
}

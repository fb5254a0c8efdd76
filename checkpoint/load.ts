/**
 * Loading: every rank reads the manifest, proves that all it wants is there, and only then reads and fills its pieces. Long
 * runs are read straight to where they belong; a piece is handed over only when all of its bytes were verified.
 *
 * @module
 */
import type {
  CheckpointStore,
  LoadedCheckpoint,
  LoadOptions,
  ShardedState,
  StatePiece,
  StateTensor,
} from "../core/contracts/checkpointer.ts";
import type { Collective } from "../core/contracts/collective.ts";
import { bytesOf, newHostArray, type StoredArray } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { onEveryRank, onFirstRank } from "./agree.ts";
import { type BlockReader, type ByteRange, blockReader } from "./block-reader.ts";
import { volume } from "./boxes.ts";
import { castElements } from "./cast.ts";
import { BLOCK_BYTES } from "./digest.ts";
import { type Match, matchTensors } from "./match.ts";
import { newestCheckpoint, type OpenedManifest, openManifest } from "./open-manifest.ts";
import { type PiecePlan, planLoad } from "./plan.ts";
import { type Read, windowReads, windows } from "./reads.ts";

/**
 * Fills the pieces of a state from a checkpoint. Collective.
 *
 * @param name a checkpoint's, or `"latest"`
 * @throws CheckpointError on every rank, with the same message. When it says that something is missing or differs, no
 *   piece was touched on any rank; when bytes are damaged, those before them, and they, may be in place already.
 */
export async function loadCheckpoint(
  store: CheckpointStore,
  state: Pick<ShardedState, "tensors">,
  name: string,
  collective: Collective,
  options: LoadOptions = {},
): Promise<LoadedCheckpoint> {
  const what = `load of ${name}`;
  const chosen = await onFirstRank(collective, what, async () => {
    const { info, sha256 } = name === "latest" ? await newest(store) : await openManifest(store, name);
    return JSON.stringify([info.name, sha256]);
  });
  const [found, digest] = JSON.parse(chosen) as [string, string];
  const { opened, matches, differences, plans } = await onEveryRank(collective, what, async () => {
    const opened = await openManifest(store, found);
    if (opened.sha256 !== digest)
      throw new CheckpointError(`checkpoint ${found}: its manifest is not the one of rank 0`);
    const { tensors } = opened.manifest;
    const { matches, differences } = matchTensors(tensors, state.tensors, options);
    const plans = planLoad(
      tensors,
      matches.map(({ wanted }) => wanted),
    );
    return { opened, matches, differences, plans };
  });
  await onEveryRank(collective, what, async () => {
    const reader = blockReader(store, found, opened.manifest.files);
    try {
      await fillPieces(reader, state.tensors, matches, plans);
    } finally {
      await reader.close();
    }
  });
  const { values, rankValues } = opened.manifest;
  return { info: opened.info, differences, values, rankValues };
}

async function newest(store: CheckpointStore): Promise<OpenedManifest> {
  const problems: string[] = [];
  const opened = await newestCheckpoint(store, (_, problem) => problems.push(problem));
  if (opened !== undefined) return opened;
  const which = problems.length === 0 ? "" : ` that can be read: ${problems.join("; ")}`;
  throw new CheckpointError(`no checkpoint in ${store.location}${which}`);
}

/** A piece that is being filled. */
interface OpenPiece {
  readonly tensor: StateTensor;
  readonly piece: StatePiece;
  /** Elements as they were saved: the piece's own memory, where they go as they are and the host reaches it. */
  readonly saved: StoredArray;
  readonly bytes: Uint8Array;
  readonly match: Match;
}

async function fillPieces(
  reader: BlockReader,
  tensors: readonly StateTensor[],
  matches: readonly Match[],
  plans: readonly PiecePlan[],
): Promise<void> {
  /** A piece of a window that is about to be read. */
  const open = ({ tensor: t, piece: p }: PiecePlan): OpenPiece => {
    const match = matches[t]!;
    const tensor = tensors[match.tensor]!;
    const piece = tensor.pieces[p]!;
    const { dtype } = match.wanted;
    const own = dtype === tensor.dtype ? piece.view?.() : undefined;
    const saved = own ?? newHostArray(dtype, volume(piece.sizes));
    return { tensor, piece, saved, bytes: bytesOf(saved), match };
  };
  const close = ({ tensor, piece, saved, match }: OpenPiece): void => {
    const from = match.wanted.dtype;
    piece.write(from === tensor.dtype ? saved : castElements(saved, from, tensor.dtype));
  };

  const all = windows(plans);
  const opened = new Map<number, readonly OpenPiece[]>();
  // One stream of reads over all windows, so that the next window's first bytes come while this one's are placed.
  function* reads(): Generator<WindowRead> {
    for (const [window, pieces] of all.entries()) {
      const targets = pieces.map(open);
      opened.set(window, targets);
      for (const read of windowReads(pieces)) yield* inPlace({ ...read, window }, targets);
    }
  }
  let current = 0;
  const closeUntil = (window: number): void => {
    for (; current < window; current++) {
      for (const piece of opened.get(current) ?? []) close(piece);
      opened.delete(current);
    }
  };
  for await (const { range, bytes } of reader.readAll(reads(), extentsOf(all))) {
    closeUntil(range.window);
    if (range.into !== undefined) continue;
    const targets = opened.get(range.window)!;
    for (const run of range.runs) {
      const at = run.source - range.begin;
      targets[run.piece]!.bytes.set(bytes.subarray(at, at + run.length), run.target);
    }
  }
  closeUntil(all.length);
}

/** Most bytes that are fetched as one: what of it is not read yet may lie in memory. */
const EXTENT_BYTES = 64 * 1024 * 1024;

/** What the reads of all windows take of files without a gap, whole blocks, in their order. */
function extentsOf(all: readonly (readonly PiecePlan[])[]): readonly ByteRange[] {
  const extents: { file: string; begin: number; end: number }[] = [];
  for (const pieces of all) {
    for (const { file, begin: first, end: last } of windowReads(pieces)) {
      const begin = Math.floor(first / BLOCK_BYTES) * BLOCK_BYTES;
      const end = Math.ceil(last / BLOCK_BYTES) * BLOCK_BYTES;
      const extent = extents.at(-1);
      const continues = extent?.file === file && begin <= extent.end && first >= extent.begin;
      if (extent !== undefined && continues && end - extent.begin <= EXTENT_BYTES) {
        extent.end = Math.max(extent.end, end);
      } else extents.push({ file, begin: continues ? Math.max(begin, extent.end) : begin, end });
    }
  }
  return extents;
}

/** A read for the pieces of a window. */
interface WindowRead extends Read {
  readonly window: number;
  readonly into?: Uint8Array;
}

/** A read of one run as up to three, of which the middle one is whole blocks, which are read where they belong. */
function* inPlace(read: WindowRead, targets: readonly OpenPiece[]): Generator<WindowRead> {
  const { begin, end, runs } = read;
  const [run] = runs;
  const first = Math.ceil(begin / BLOCK_BYTES) * BLOCK_BYTES;
  const last = Math.floor(end / BLOCK_BYTES) * BLOCK_BYTES;
  if (run === undefined || runs.length > 1 || first >= last) return yield read;
  const part = (from: number, to: number): WindowRead => {
    const cut = { ...run, source: from, target: run.target + from - begin, length: to - from };
    return { ...read, begin: from, end: to, runs: [cut] };
  };
  if (begin < first) yield part(begin, first);
  const target = run.target + first - begin;
  yield { ...part(first, last), into: targets[run.piece]!.bytes.subarray(target, target + last - first) };
  if (last < end) yield part(last, end);
}

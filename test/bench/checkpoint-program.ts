/**
 * What the ranks of the checkpoint benchmark run.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { rankFile } from "../../checkpoint/rank-file.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import type { PendingSave } from "../../core/contracts/checkpointer.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import { benchState, secondsOf, uncache } from "./bench-state.ts";

/** What is measured. */
export interface CheckpointBenchArgs {
  readonly folder: string;
  /** Bytes of the whole state. */
  readonly bytes: number;
  readonly rounds: number;
}

/** Seconds of one rank, one entry a round. */
export interface CheckpointTimes {
  readonly write: number[];
  readonly hash: number[];
  readonly save: number[];
  /** From the disk, and again from the page cache. */
  readonly read: number[];
  readonly cachedRead: number[];
  readonly load: number[];
  readonly cachedLoad: number[];
  /** Steps without a save, with one in the background, and with one that holds them up. */
  readonly quiet: number[];
  readonly background: number[];
  readonly blocking: number[];
}

const CHUNK = 8 * 2 ** 20;
const STEPS = 12;
/** The first of them takes the memory that later ones use again. */
const TRAIN_ROUNDS = 3;

/** Times saving and loading beside a plain writer, SHA-256 and a plain reader over the same bytes. */
export async function timeCheckpoints(
  context: RankContext,
  { folder, bytes, rounds }: CheckpointBenchArgs,
): Promise<CheckpointTimes> {
  const { collective, rank } = context;
  const { state, values } = benchState(bytes, collective);
  const checkpointer = nativeCheckpointer(directoryStore(join(folder, "run")));
  const path = join(folder, `plain-${rank}`);
  /** Files go before the next ones come, timed by nobody: whoever comes next finds their pages. */
  const clear = async (): Promise<void> => {
    await rm(path, { force: true });
    if (rank === 0) for (const { name } of await checkpointer.list()) await checkpointer.delete(name);
    await collective.barrier().wait();
  };
  const time = (run: () => Promise<unknown>): Promise<number> => secondsOf(collective, run);
  const times: CheckpointTimes = {
    write: [],
    hash: [],
    save: [],
    read: [],
    cachedRead: [],
    load: [],
    cachedLoad: [],
    quiet: [],
    background: [],
    blocking: [],
  };
  for (let step = 1; step <= rounds; step++) {
    times.write.push(await time(() => plainWrite(path, values)));
    uncache(path);
    times.read.push(await time(() => plainRead(path, values)));
    times.cachedRead.push(await time(() => plainRead(path, values)));
    await clear();
    let name = "";
    const save = async () => {
      name = (await checkpointer.save(state, step, collective)).name;
    };
    const load = () => checkpointer.load(state, "latest", collective);
    times.save.push(await time(save));
    uncache(join(folder, "run", name, rankFile(rank)));
    times.load.push(await time(load));
    times.cachedLoad.push(await time(load));
    await clear();
    times.hash.push(await time(async () => plainHash(values)));
  }
  for (let step = 1; step <= TRAIN_ROUNDS; step++) {
    times.quiet.push(await time(train));
    const save = () => checkpointer.save(state, step, collective);
    times.blocking.push(await time(() => save().then(train)));
    await clear();
    const begun: PendingSave[] = [];
    const start = async () => void begun.push(await checkpointer.saveAsync(state, step, collective));
    times.background.push(await time(() => start().then(train)));
    for (const pending of begun) await pending.wait();
    await clear();
  }
  await checkpointer.close();
  return times;
}

async function plainWrite(path: string, values: readonly Float32Array[]): Promise<void> {
  const file = await open(path, "w");
  for (const chunk of chunks(values)) await file.write(chunk);
  await file.sync();
  await file.close();
}

async function plainHash(values: readonly Float32Array[]): Promise<void> {
  const hash = createHash("sha256");
  for (const chunk of chunks(values)) hash.update(chunk);
  hash.digest();
}

async function plainRead(path: string, values: readonly Float32Array[]): Promise<void> {
  const file = await open(path, "r");
  let at = 0;
  for (const chunk of chunks(values)) {
    await file.read(chunk, 0, chunk.length, at);
    at += chunk.length;
  }
  await file.close();
}

function* chunks(values: readonly Float32Array[]): Generator<Uint8Array> {
  for (const array of values) {
    const bytes = new Uint8Array(array.buffer);
    for (let at = 0; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK);
  }
}

/** Some steps as a training loop has them: this thread computes, and awaits between the steps. */
async function train(): Promise<void> {
  const values = new Float64Array(4096).fill(1.000001);
  for (let step = 0; step < STEPS; step++) {
    for (let pass = 0; pass < 2000; pass++) {
      for (let i = 0; i < values.length; i++) values[i] = Math.sqrt(values[i]! + i);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

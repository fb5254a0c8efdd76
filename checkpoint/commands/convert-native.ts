/**
 * Any source as a native checkpoint: saved by as many ranks as hold shards of it, in this process, through the same code
 * that saves a run.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import type { ShardedState, StatePiece, Value } from "../../core/contracts/checkpointer.ts";
import type { Collective } from "../../core/contracts/collective.ts";
import type { CommandContext } from "../../core/contracts/command.ts";
import { STORED_DTYPES } from "../../core/contracts/dtype.ts";
import { CheckpointError, ConfigError, StateError } from "../../core/contracts/errors.ts";
import { CHECKPOINTER, TRANSPORT } from "../../core/contracts/plugin.ts";
import type { RankFunction } from "../../core/contracts/transport.ts";
import { storeAt } from "../../core/runtime/checkpoint-place.ts";
import { rankProgram } from "../../core/runtime/rank-program.ts";
import { cutLarge } from "../formats/slabs.ts";
import { checkpointName } from "../save.ts";
import { ownName, parseRankValueName } from "./dcp-names.ts";
import { type Holders, holdersOf, MAX_BOX_BYTES } from "./holders.ts";
import { replacement } from "./replace.ts";
import type { CheckpointSource } from "./source.ts";

/** Name of the program that ranks run. */
export const CONVERT_PROGRAM = "convert";

/** Conversions under way in this process: the ranks of the local transport run in it and find theirs here. */
const jobs = new Map<string, (collective: Collective) => Promise<void>>();

/** What a rank of a conversion does. */
export const convertRank: RankFunction = async ({ collective }, args) => {
  const job = jobs.get(String(args));
  if (job === undefined) throw new StateError("convert: its ranks must run in the process of the command");
  return await job(collective);
};

/** Saves a checkpoint into a run. @returns where it is. */
export async function toNative(
  { registry, options }: CommandContext,
  source: CheckpointSource,
  target: string,
): Promise<string> {
  const store = storeAt(registry, target);
  if (store === undefined) throw new ConfigError(`cannot write ${JSON.stringify(target)}: no store takes it`);
  const native = registry.get(CHECKPOINTER, "native");
  const step = typeof options.step === "number" ? options.step : stepOf(source);
  const holders = holdersOf(source);
  const { values, rankValues } = valuesOf(source);
  const worldSize = Math.max(holders.worldSize, rankValues.length);
  const name = checkpointName(step);
  const known = await native(store).list();
  const taken = known.filter((info) => info.step === step || info.name === name).map((info) => info.name);
  if (taken.length > 0 && options.overwrite !== true) {
    throw new ConfigError(
      `cannot write step ${step} to ${JSON.stringify(target)}: ${taken[0]} exists already, allowed with --overwrite or another --step`,
    );
  }
  const replaced = taken.length === 0 ? undefined : replacement(store, name, taken);
  const checkpointer = native(replaced?.store ?? store);
  const id = randomUUID();
  jobs.set(id, async (collective) => {
    const tensors = tensorsOf(source, holders, collective.rank);
    const own = rankValues[collective.rank] ?? {};
    await checkpointer.save({ tensors, values, rankValues: own }, step, collective);
  });
  try {
    const job = registry
      .get(TRANSPORT, "local")
      .launch(rankProgram(registry, CONVERT_PROGRAM, id), { worldSize });
    await job.results;
    await replaced?.complete();
    return `${store.location}/${name}`;
  } finally {
    jobs.delete(id);
  }
}

/** The boxes that a rank takes over. */
function tensorsOf(source: CheckpointSource, { ranks }: Holders, rank: number): ShardedState["tensors"] {
  return source.tensors.map(({ name, dtype, shape, chunks }) => ({
    name,
    dtype,
    shape,
    pieces: chunks
      .filter(({ file, sizes }) => ranks[file] === rank && !sizes.includes(0))
      .flatMap((chunk) =>
        cutLarge({ offsets: chunk.offsets, sizes: chunk.sizes }, STORED_DTYPES[dtype].bytes, MAX_BOX_BYTES),
      )
      .map(
        (box): StatePiece => ({
          ...box,
          read: () => source.read(name, box),
          write: () => {
            throw new StateError(`convert: ${name} is only read`);
          },
        }),
      ),
  }));
}

/** Values for all ranks and for each one, which other formats keep under names of their own. */
function valuesOf(source: CheckpointSource): {
  values: Readonly<Record<string, Value>>;
  rankValues: readonly Readonly<Record<string, Value>>[];
} {
  const values = new Map<string, Value>();
  const rankValues = source.rankValues.map((own) => new Map(Object.entries(own)));
  for (const { name, value } of source.values) {
    const ofRank = parseRankValueName(name);
    if (ofRank === undefined) {
      values.set(ownName(name), value);
      continue;
    }
    if (ofRank.rank >= MAX_RANKS)
      throw new CheckpointError(`${source.location}: a value of rank ${ofRank.rank}`);
    while (rankValues.length <= ofRank.rank) rankValues.push(new Map());
    rankValues[ofRank.rank]!.set(ofRank.name, value);
  }
  return { values: Object.fromEntries(values), rankValues: rankValues.map((own) => Object.fromEntries(own)) };
}

const MAX_RANKS = 1024;

/** The step that the source says it is of. */
function stepOf(source: CheckpointSource): number {
  if (source.step !== undefined) return source.step;
  for (const name of ["step", "train.step", "values.step"]) {
    const value = source.values.find((found) => found.name === name)?.value;
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  }
  return 0;
}

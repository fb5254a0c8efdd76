/**
 * Runs a command on checkpoints in this process, and what commands are tried on.
 *
 * @module
 */

import { collectivesPlugin } from "../../../backends/collectives/mod.ts";
import { wholeBox } from "../../../checkpoint/boxes.ts";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { findSource } from "../../../checkpoint/commands/find-source.ts";
import type { SourceChunk, SourceFormat } from "../../../checkpoint/commands/source.ts";
import { checkpointPlugin } from "../../../checkpoint/mod.ts";
import { directoryStore } from "../../../checkpoint/stores/directory.ts";
import type { Value } from "../../../core/contracts/checkpointer.ts";
import { bytesOf } from "../../../core/contracts/dtype.ts";
import type { Registry } from "../../../core/contracts/plugin.ts";
import type { RankFunction } from "../../../core/contracts/transport.ts";
import { runCommandLine } from "../../../core/runtime/command-line.ts";
import { programRunner } from "../../../core/runtime/rank-program.ts";
import { createRegistry, usePlugins } from "../../../core/runtime/registry.ts";
import { runRanks } from "../ranks.ts";
import { dimZero, type FullTensor, shardedState } from "../states.ts";

/** The commands, and what they need. */
export const registry: Registry = createRegistry({ root: import.meta.url });
usePlugins(registry, [collectivesPlugin, checkpointPlugin]);

/** What ranks import this module for. */
export const runProgram: RankFunction = programRunner(registry);

/** What a command left. */
export interface CommandResult {
  readonly code: number;
  readonly out: readonly string[];
  readonly err: readonly string[];
}

/** Runs a command line. */
export async function command(...argv: readonly string[]): Promise<CommandResult> {
  const [out, err]: [string[], string[]] = [[], []];
  const code = await runCommandLine(registry, argv, {
    print: (line) => void out.push(line),
    printError: (line) => void err.push(line),
    drain: async () => undefined,
  });
  return { code, out, err };
}

/** All that a checkpoint of any format holds. */
export interface Content {
  readonly format: SourceFormat;
  /** Dtype, shape and bytes by name, as text. */
  readonly tensors: Readonly<Record<string, string>>;
  readonly values: Readonly<Record<string, Value>>;
  readonly rankValues: readonly Readonly<Record<string, Value>>[];
  /** The full boxes of each tensor, with the number of their file. */
  readonly chunks: Readonly<Record<string, readonly SourceChunk[]>>;
}

/** Reads all of a checkpoint. */
export async function contentOf(location: string): Promise<Content> {
  const source = await (await findSource(registry, location)).open();
  try {
    const tensors: Record<string, string> = {};
    for (const { name, dtype, shape } of source.tensors) {
      const bytes = bytesOf(await source.read(name, wholeBox(shape)));
      tensors[name] = `${dtype} [${shape}] ${Buffer.from(bytes).toString("hex")}`;
    }
    return {
      format: source.format,
      tensors,
      values: Object.fromEntries(source.values.map(({ name, value }) => [name, value])),
      rankValues: source.rankValues,
      chunks: Object.fromEntries(
        source.tensors.map(({ name, chunks }) => [name, chunks.filter(({ sizes }) => !sizes.includes(0))]),
      ),
    };
  } finally {
    await source.close();
  }
}

/** Saves a native checkpoint of tensors cut by rows. */
export async function saveNative(
  folder: string,
  tensors: readonly FullTensor[],
  options: {
    readonly worldSize?: number;
    readonly step?: number;
    readonly values?: Readonly<Record<string, Value>>;
  } = {},
): Promise<void> {
  const { worldSize = 2, step = 7, values = {} } = options;
  const checkpointer = nativeCheckpointer(directoryStore(folder), { now: () => 0 });
  await runRanks(worldSize, (collective) =>
    checkpointer.save(shardedState(tensors, dimZero(worldSize), collective.rank, values), step, collective),
  );
}

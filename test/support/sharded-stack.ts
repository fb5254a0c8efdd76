/** A sharded stack whose groups are followed, for tests of schedules. */
import { traceUnits } from "../../core/engine/trace.ts";
import * as ops from "../../core/tensor/ops/mod.ts";
import { type FSDPModule, type FullyShardOptions, fullyShard } from "../../plugins/fsdp2/mod.ts";
import type { Block, Stack } from "./models.ts";
import type { TestRank } from "./ranks.ts";
import { batch, smallStack } from "./training.ts";

/** A sharded stack, and what its groups do. */
export interface Sharded {
  readonly model: Stack & FSDPModule;
  readonly blocks: readonly (Block & FSDPModule)[];
  /** What units did: U unshard, R reshard, P post-backward; `r` is the root, numbers are blocks. */
  readonly words: string[];
}

/** Shards a stack, block by block. */
export function sharded(rank: TestRank, layers: number, options: Partial<FullyShardOptions> = {}): Sharded {
  const how = { mesh: rank.mesh, ...options };
  const inner = smallStack(layers);
  const blocks = inner.blocks.map((block) => fullyShard(block, how));
  const model = fullyShard(inner, how);
  const words: string[] = [];
  const letters: Readonly<Record<string, string>> = { unshard: "U", reshard: "R", postBackward: "P" };
  traceUnits(model, ({ kind, unit }) => {
    if (letters[kind] !== undefined)
      words.push(letters[kind] + (unit === "" ? "r" : unit.slice("blocks.".length)));
  });
  return { model, blocks, words };
}

/** What happens in forward and in backward, joined by blanks. */
export async function step(rank: TestRank, { model, words }: Sharded): Promise<readonly [string, string]> {
  return await rank.device.scope(async () => {
    words.length = 0;
    const { x, y } = batch(rank, 0);
    const loss = ops.mseLoss(await model.call(x), y);
    const forward = words.splice(0).join(" ");
    await loss.backward();
    return [forward, words.splice(0).join(" ")];
  });
}

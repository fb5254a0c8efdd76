import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { type BackwardPrefetch, shardModule } from "../../../core/engine/shard-module.ts";
import { unitOf } from "../../../core/engine/sharded-modules.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import { checkpoint, Embedding, Linear, Sequential } from "../../../core/nn/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { dim0Shard } from "../../../plugins/fsdp2/dim-shard.ts";
import { type FullyShardOptions, fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { runRanks } from "../../support/ranks.ts";
import { type Sharded, sharded, step } from "../../support/sharded-stack.ts";
import { expectSame, forwardBackward, smallStack, trainedAlone, trainStack } from "../../support/training.ts";

async function events(
  layers: number,
  options: Partial<FullyShardOptions>,
  set: (sharded: Sharded) => void = () => {},
) {
  const [result] = await runRanks(2, async (rank) => {
    const all = sharded(rank, layers, options);
    set(all);
    await all.model.to(rank.device);
    const first = await step(rank, all);
    expect(await step(rank, all)).toEqual(first);
    return first;
  });
  return result!;
}

describe("prefetch", () => {
  test("in backward gathers the group before, in reverse order of forward", async () => {
    for (const on of [false, true]) {
      const set = ({ blocks }: Sharded) => void (on && blocks.map((block) => checkpoint(block)));
      expect(await events(3, { reshardAfterForward: true }, set)).toEqual([
        "Ur U0 R0 U1 R1 U2 R2 Rr",
        "Ur U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr",
      ]);
      expect((await events(3, {}, set))[1]).toBe("U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr");
      expect(await events(3, { reshardAfterForward: false }, set)).toEqual([
        "Ur U0 U1 U2",
        "R2 P2 R1 P1 R0 P0 Rr Pr",
      ]);
    }
  });

  test("in forward gathers what came next in the pass before", async () => {
    await runRanks(2, async (rank) => {
      const all = sharded(rank, 3, { forwardPrefetch: true, reshardAfterForward: true });
      await all.model.to(rank.device);
      expect((await step(rank, all))[0]).toBe("Ur U0 R0 U1 R1 U2 R2 Rr");
      expect((await step(rank, all))[0]).toBe("Ur U0 U1 R0 U2 R1 R2 Rr");
    });
  });

  test("stops as soon as a pass goes another way than the one before, and frees what was gathered in vain", async () => {
    await runRanks(2, async (rank) => {
      const all = sharded(rank, 3, { forwardPrefetch: true, reshardAfterForward: true });
      const { model, blocks } = all;
      await model.to(rank.device);
      await step(rank, all);
      model.forward = async (x) => {
        let states = await model.inner.call(x);
        for (const i of [0, 2, 1]) states = await blocks[i]!.call(states);
        return await model.outer.call(states);
      };
      expect((await step(rank, all))[0]).toBe("Ur U0 U1 R0 U2 R2 R1 Rr");
      model.forward = async (x) => await model.outer.call(await blocks[0]!.call(await model.inner.call(x)));
      expect((await step(rank, all))[0]).toBe("Ur U0 U2 R0 Rr R2");
    });
  });

  test("by lists gathers any number ahead, forward and backward", async () => {
    const ahead = (count: number, direction: 1 | -1) => (sharded: Sharded) => {
      for (const [i, block] of sharded.blocks.entries()) {
        const list = Array.from({ length: count }, (_, k) => sharded.blocks[i + direction * (k + 1)]).flatMap(
          (b) => b ?? [],
        );
        if (direction === 1) block.setModulesToForwardPrefetch(list);
        else block.setModulesToBackwardPrefetch(list);
      }
    };
    const options = { reshardAfterForward: true };
    expect((await events(4, options, ahead(1, 1)))[0]).toBe("Ur U0 U1 R0 U2 R1 U3 R2 R3 Rr");
    expect((await events(4, options, ahead(2, 1)))[0]).toBe("Ur U0 U1 U2 R0 U3 R1 R2 R3 Rr");
    expect((await events(4, options, ahead(2, -1)))[1]).toBe("Ur U3 U2 U1 R3 P3 U0 R2 P2 R1 P1 R0 P0 Rr Pr");
  });

  test("of the wrong groups does no harm", async () => {
    const reference = await trainedAlone();
    for (const worldSize of [2, 3]) {
      const results = await runRanks(worldSize, (rank) =>
        trainStack(rank, {
          shard: (model) => {
            const blocks = model.blocks.map((block) => fullyShard(block, { mesh: rank.mesh }));
            fullyShard(model, { mesh: rank.mesh });
            for (const block of blocks) {
              block.setModulesToForwardPrefetch(blocks);
              block.setModulesToBackwardPrefetch(blocks.toReversed());
            }
          },
        }),
      );
      expectSame(results, reference);
    }
  });

  test("lists take sharded modules only", async () => {
    await runRanks(1, async (rank) => {
      const { model } = sharded(rank, 1);
      expect(() => model.setModulesToForwardPrefetch([model.inner])).toThrow(ConfigError);
      expect(() => model.setModulesToBackwardPrefetch([model.outer])).toThrow(/Linear that is not sharded/);
    });
  });
});

describe("setters of a sharded module", () => {
  test("change what is freed after forward, below or here alone, in the root too", async () => {
    const without = (options: { recurse: boolean }) => (all: Sharded) =>
      all.model.setReshardAfterForward(false, options);
    expect((await events(2, { reshardAfterForward: true }, without({ recurse: true })))[1]).toBe(
      "R1 P1 R0 P0 Rr Pr",
    );
    expect((await events(2, { reshardAfterForward: true }, without({ recurse: false })))[1]).toBe(
      "U1 U0 R1 P1 R0 P0 Rr Pr",
    );
    const rootToo = (all: Sharded) => all.model.setReshardAfterForward(true);
    expect((await events(1, {}, rootToo))[1]).toBe("Ur U0 R0 P0 Rr Pr");
  });

  test("leave out gathers that backward does not need", async () => {
    const set = (all: Sharded) => all.blocks[0]!.setUnshardInBackward(false);
    // The block's weights are needed, and so it says so when they are read.
    await expect(events(2, { reshardAfterForward: true }, set)).rejects.toThrow(
      /"blocks\.0\..*is sharded now/,
    );
  });

  test("refuse what they cannot mean", async () => {
    await runRanks(1, async (rank) => {
      const { model } = sharded(rank, 1);
      expect(() => model.setReshardAfterForward(2 as never)).toThrow(ConfigError);
      expect(() => model.setReshardAfterBackward("no" as never)).toThrow(ConfigError);
      for (const count of [0, -1, 2.5, true as never, Number.NaN]) {
        expect(() => model.setReduceScatterMaxInputBuffers(count)).toThrow(ConfigError);
      }
    });
  });
});

describe("setReduceScatterMaxInputBuffers", () => {
  test("lets more reductions be under way, with the same values", async () => {
    const run = (count: number) =>
      runRanks(2, async (rank) => {
        const { model } = sharded(rank, 4);
        await model.to(rank.device);
        model.setReduceScatterMaxInputBuffers(count, { recurse: false });
        await forwardBackward(rank, model, 0);
        rank.device.backend.memory.resetPeak();
        for (const { grad } of model.parameters()) grad?.dispose();
        for (const parameter of model.parameters()) parameter.grad = undefined;
        await forwardBackward(rank, model, 0);
        const gradients = await Promise.all(model.parameters().map((p) => p.grad!.data()));
        return { gradients, peak: rank.device.backend.memory.report().peak.communication };
      });
    const [one, three] = [await run(1), await run(3)];
    for (const r of [0, 1]) {
      expect(three[r]!.gradients).toEqual(one[r]!.gradients);
      expect(three[r]!.peak).toBeGreaterThan(one[r]!.peak);
    }
  });
});

describe("setUnshardInBackward", () => {
  test("leaves out a gather that no gradient needs: an embedding's", async () => {
    const run = (needed: boolean) =>
      runRanks(3, async (rank) => {
        const embed = fullyShard(new Embedding(7, 4), { mesh: rank.mesh });
        const model = fullyShard(new Sequential(embed, new Linear(4, 1)), { mesh: rank.mesh });
        embed.setUnshardInBackward(needed);
        await model.to(rank.device);
        let gathers = 0;
        await rank.device.scope(async () => {
          const out = await model.call(rank.device.tensor(Int32Array.from([1, 6, 1])));
          traceUnits(model, ({ kind }) => {
            if (kind === "allGather") gathers++;
          });
          await ops.sum(out).backward();
        });
        return { gathers, gradient: await embed.weight.grad!.data() };
      });
    const [all, fewer] = [await run(true), await run(false)];
    for (const [r, { gathers, gradient }] of fewer.entries()) {
      expect([all[r]!.gathers, gathers]).toEqual([1, 0]);
      expect(gradient).toEqual(all[r]!.gradient);
    }
  });
});

describe("backwardPrefetch", () => {
  test("gathers the next group before, after or not ahead of a group's backward", async () => {
    const backward = async (backwardPrefetch: BackwardPrefetch) => {
      const [words] = await runRanks(2, async (rank) => {
        const model = smallStack(3);
        const how = {
          layout: dim0Shard,
          group: rank.collective,
          reshardAfterForward: true,
          backwardPrefetch,
        };
        for (const module of [...model.blocks, model]) shardModule(module, how);
        await model.to(rank.device);
        const words: string[] = [];
        traceUnits(model, ({ kind, unit }) => {
          const letter = { unshard: "U", reshard: "R", postBackward: "P" }[kind as string];
          if (letter !== undefined) words.push(letter + (unit === "" ? "r" : unit.slice("blocks.".length)));
        });
        await forwardBackward(rank, model, 0);
        return words.join(" ").replace(/^.*? Rr /, "");
      });
      return words;
    };
    expect(await backward("pre")).toBe("Ur U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr");
    expect(await backward("post")).toBe("Ur U2 R2 P2 U1 R1 P1 U0 R0 P0 Rr Pr");
    expect(await backward("none")).toBe("Ur U2 R2 P2 U1 R1 P1 U0 R0 P0 Rr Pr");
  });

  test("post gathers as soon as a group is left, none when the next is entered", async () => {
    const gatheringAfter = async (backwardPrefetch: BackwardPrefetch) => {
      const [states] = await runRanks(2, async (rank) => {
        const model = smallStack(2);
        const how = {
          layout: dim0Shard,
          group: rank.collective,
          reshardAfterForward: true,
          backwardPrefetch,
        };
        for (const module of [...model.blocks, model]) shardModule(module, how);
        await model.to(rank.device);
        const [first, second] = model.blocks.map((block) => unitOf(block)!);
        const states: string[] = [];
        const { leaveBackward } = second!;
        second!.leaveBackward = async () => {
          await leaveBackward.call(second);
          states.push(first!.state);
        };
        await forwardBackward(rank, model, 0);
        return states;
      });
      return states;
    };
    expect(await gatheringAfter("post")).toEqual(["gathering"]);
    expect(await gatheringAfter("none")).toEqual(["sharded"]);
  });
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { blockReader } from "../../checkpoint/block-reader.ts";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { BLOCK_BYTES, hashFile } from "../../checkpoint/digest.ts";
import { openManifest } from "../../checkpoint/open-manifest.ts";
import { planLoad } from "../../checkpoint/plan.ts";
import { windowReads, windows } from "../../checkpoint/reads.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import type { CheckpointStore, ShardedState, StatePiece } from "../../core/contracts/checkpointer.ts";
import { bytesOf, newHostArray, STORED_DTYPES, type StoredArray } from "../../core/contracts/dtype.ts";
import { generator, randomLayout, tensorsArbitrary } from "./layouts.ts";
import { runRanks } from "./ranks.ts";
import { cutBox, dimZero, emptyState, type FullTensor, patternTensor, shardedState } from "./states.ts";

describe("the reads of a load", () => {
  test("take every wanted byte once and put it where it belongs, in ascending order within a file and window", async () => {
    const sizes = fc.integer({ min: 1, max: 5 });
    await fc.assert(
      fc.asyncProperty(tensorsArbitrary, sizes, sizes, fc.integer(), async (tensors, from, to, seed) => {
        const store = memoryStore("memory:reads");
        await runRanks(from, (collective) =>
          nativeCheckpointer(store).save(
            shardedState(tensors, randomLayout(from, seed), collective.rank),
            1,
            collective,
          ),
        );
        const { manifest } = await openManifest(store, "step-00000001");
        for (let rank = 0; rank < to; rank++) {
          const { state } = emptyState(tensors, randomLayout(to, ~seed), rank);
          const plans = planLoad(manifest.tensors, state.tensors);
          let taken = 0;
          for (const window of windows(plans)) {
            let last = { file: "", source: 0 };
            for (const { file, begin, end, runs } of windowReads(window)) {
              for (const run of runs) {
                if (last.file === file) expect(run.source).toBeGreaterThanOrEqual(last.source);
                expect(run.source >= begin && run.source + run.length <= end).toBe(true);
                last = { file, source: run.source + run.length };
                taken += run.length;
              }
            }
          }
          expect(taken).toBe(plans.reduce((sum, { bytes }) => sum + bytes, 0));
        }
      }),
      { numRuns: 60 },
    );
  });

  test("read no block twice: rows, columns, and small tensors side by side", async () => {
    const tensors = [
      patternTensor("a.big", "float32", [1500, 1000]),
      ...Array.from({ length: 40 }, (_, i) => patternTensor(`b.${i}`, "float32", [130, 130])),
      patternTensor("c", "bfloat16", [700, 1001]),
    ];
    const inner = memoryStore("memory:once");
    await runRanks(2, (collective) =>
      nativeCheckpointer(inner).save(shardedState(tensors, dimZero(2), collective.rank), 1, collective),
    );
    const columns = ({ shape }: FullTensor, rank: number) =>
      // Three ranks' worth of columns, in two pieces each, whose runs interleave in the file.
      [0, 1].map((half) => {
        const width = Math.floor(shape[1]! / 6);
        return { offsets: [0, (rank * 2 + half) * width], sizes: [shape[0]!, width] };
      });
    for (const layout of [dimZero(3), columns]) {
      await runRanks(3, async (collective) => {
        const seen = new Set<string>();
        const store: CheckpointStore = {
          ...inner,
          async read(name, file, begin, end) {
            for (let at = begin; at < end && file.endsWith(".safetensors"); at += BLOCK_BYTES) {
              const block = `${file}:${at / BLOCK_BYTES}`;
              expect(seen.has(block)).toBe(false);
              seen.add(block);
            }
            return await inner.read(name, file, begin, end);
          },
        };
        const { state, filled } = emptyState(tensors, layout, collective.rank);
        await nativeCheckpointer(store).load(state, "latest", collective);
        for (const { tensor, box, bytes } of filled) {
          expect(Buffer.compare(bytes, cutBox(tensor, box))).toBe(0);
        }
      });
    }
  });

  test("fill memory in place, through a device's own calls, or through copies, alike", async () => {
    const sizes = fc.integer({ min: 1, max: 4 });
    await fc.assert(
      fc.asyncProperty(tensorsArbitrary, sizes, sizes, fc.integer(), async (tensors, from, to, seed) => {
        const store = memoryStore("memory:in-place");
        const checkpointer = nativeCheckpointer(store);
        const device = devices(tensors, seed);
        await runRanks(from, (collective) =>
          checkpointer.save(device(randomLayout(from, seed), collective.rank, true).state, 1, collective),
        );
        await runRanks(to, async (collective) => {
          const { state, boxes } = device(randomLayout(to, seed + 1), collective.rank, false);
          await checkpointer.load(state, "latest", collective);
          for (const { memory, expected, written } of boxes) {
            expect(bytesOf(memory)).toEqual(expected);
            expect(written()).toBe(1);
          }
        });
      }),
      { numRuns: 40 },
    );
  });
});

/** States over memory of three kinds: what the host sees, what it must ask for, and what it is handed. */
function devices(tensors: readonly FullTensor[], seed: number) {
  return (layout: ReturnType<typeof dimZero>, rank: number, full: boolean) => {
    const random = generator(seed + rank);
    const boxes: { memory: StoredArray; expected: Uint8Array; written: () => number }[] = [];
    const state: ShardedState = {
      tensors: tensors.map((tensor) => ({
        ...tensor,
        pieces: layout(tensor, rank).map((box): StatePiece => {
          const expected = cutBox(tensor, box);
          const memory = newHostArray(tensor.dtype, expected.length / STORED_DTYPES[tensor.dtype].bytes);
          if (full) bytesOf(memory).set(expected);
          let writes = 0;
          boxes.push({ memory, expected, written: () => writes });
          const kind = random(3);
          return {
            ...box,
            read: async () => memory.slice(),
            ...(kind === 0 ? { view: () => memory } : {}),
            ...(kind === 1
              ? { readInto: async (target) => bytesOf(target).set(bytesOf(memory)), view: () => undefined }
              : {}),
            write: (data) => {
              writes += 1;
              if (data !== memory) bytesOf(memory).set(bytesOf(data));
            },
          };
        }),
      })),
      values: {},
      rankValues: {},
    };
    return { state, boxes };
  };
}

describe("the block reader", () => {
  test("gives the bytes of any ranges of any files, in any order, and finds the block that is damaged", async () => {
    const block = BLOCK_BYTES;
    const lengths = [3 * block + 5, block, 17];
    const contents = lengths.map((length, f) => patternTensor(`file ${f}`, "uint8", [length]).bytes);
    const files = contents.map((bytes, f) => {
      const hasher = hashFile();
      hasher.update(bytes);
      return { name: `f${f}`, block, ...hasher.finish() };
    });
    const damaged = contents.map((bytes) => bytes.slice());
    damaged[0]![2 * block + 3]! ^= 1;
    const storeOf = (from: readonly Uint8Array[]): CheckpointStore => ({
      ...memoryStore("memory:blocks"),
      read: async (_, file, begin, end) => from[Number(file.slice(1))]!.slice(begin, end),
    });
    const range = fc
      .integer({ min: 0, max: 2 })
      .chain((f) =>
        fc
          .tuple(fc.integer({ min: 0, max: lengths[f]! }), fc.integer({ min: 0, max: lengths[f]! }))
          .map(([a, b]) => ({ file: `f${f}`, begin: Math.min(a, b), end: Math.max(a, b) })),
      );
    await fc.assert(
      fc.asyncProperty(fc.array(range, { maxLength: 12 }), async (ranges) => {
        const reader = blockReader(storeOf(contents), "x", files);
        const one = blockReader(storeOf(contents), "x", files);
        for await (const { range, bytes } of reader.readAll(ranges)) {
          const { file, begin, end } = range;
          const due = contents[Number(file.slice(1))]!.subarray(begin, end);
          expect(Buffer.compare(bytes, due)).toBe(0);
          expect(Buffer.compare(await one.read(file, begin, end), due)).toBe(0);
        }
        const bad = ranges.find(
          ({ file, begin, end }) => file === "f0" && begin < end && begin < 3 * block && end > 2 * block,
        );
        const faulty = blockReader(storeOf(damaged), "x", files);
        const all = (async () => {
          for await (const _ of faulty.readAll(ranges)) void _;
        })();
        const message = await all.then(
          () => undefined,
          (error: Error) => error.message,
        );
        expect(message).toBe(
          bad === undefined ? undefined : "checkpoint x: f0: block 2 does not match its checksum",
        );
      }),
      { numRuns: 40 },
    );
  });
});

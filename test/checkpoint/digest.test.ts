import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { blockReader } from "../../checkpoint/block-reader.ts";
import { BLOCK_BYTES, hashBlocks, hashFile } from "../../checkpoint/digest.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import type { CheckpointStore } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { patternTensor } from "./states.ts";

const LENGTH = 3 * BLOCK_BYTES + 17;
const { bytes: DATA } = patternTensor("data", "uint8", [LENGTH]);

describe("file digests", () => {
  test("do not depend on how the bytes are handed over", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: LENGTH }), { maxLength: 6 }), (cuts) => {
        const hasher = hashFile();
        const marks = [0, ...cuts.sort((a, b) => a - b), LENGTH];
        for (let i = 1; i < marks.length; i++) hasher.update(DATA.subarray(marks[i - 1], marks[i]));
        expect(hasher.finish()).toEqual({
          length: LENGTH,
          sha256: createHash("sha256").update(DATA).digest("hex"),
          crc32: [0, 1, 2, 3].map((block) =>
            crc32(DATA.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)),
          ),
        });
      }),
      { numRuns: 15 },
    );
  });

  test("of blocks alone are those of the whole without its SHA-256", () => {
    const lengths = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, LENGTH];
    fc.assert(
      fc.property(
        fc.oneof(fc.constantFrom(...lengths), fc.integer({ min: 0, max: LENGTH })),
        fc.array(fc.integer({ min: 0, max: LENGTH }), { maxLength: 6 }),
        (length, cuts) => {
          const [blocks, whole] = [hashBlocks(), hashFile()];
          whole.update(DATA.subarray(0, length));
          const marks = [0, ...cuts.filter((cut) => cut < length).sort((a, b) => a - b), length];
          for (let i = 1; i < marks.length; i++) blocks.update(DATA.subarray(marks[i - 1], marks[i]));
          const { sha256, ...rest } = whole.finish();
          expect(sha256.length).toBe(64);
          expect(blocks.finish()).toEqual(rest);
        },
      ),
      { numRuns: 30 },
    );
  });

  test("of files that end at a block's edge, or are empty, have no checksum too many", () => {
    expect(hashFile().finish().crc32).toEqual([]);
    const hasher = hashFile();
    hasher.update(DATA.subarray(0, 2 * BLOCK_BYTES));
    expect(hasher.finish().crc32.length).toBe(2);
  });
});

describe("verified reads", () => {
  async function open(): Promise<{
    reader: ReturnType<typeof blockReader>;
    reads: [number, number][];
    spoil: (at: number) => void;
  }> {
    const store = memoryStore("memory:blocks");
    const transaction = await store.begin("c");
    const hasher = hashFile();
    hasher.update(DATA);
    for (const [file, bytes] of [
      ["f", DATA],
      ["manifest.msgpack", new Uint8Array(0)],
    ] as const) {
      const writer = await transaction.create(file);
      await writer.write(bytes);
      await writer.close();
    }
    await transaction.commit();
    const reads: [number, number][] = [];
    let spoilt = -1;
    const spoil = (at: number): void => {
      spoilt = at;
    };
    const counted: CheckpointStore = {
      ...store,
      async read(name, file, begin, end) {
        reads.push([begin, end]);
        const bytes = await store.read(name, file, begin, end);
        if (spoilt >= begin && spoilt < end) bytes[spoilt - begin]! ^= 1;
        return bytes;
      },
    };
    const reader = blockReader(counted, "c", [{ name: "f", block: BLOCK_BYTES, ...hasher.finish() }]);
    return { reader, reads, spoil };
  }

  test("give any range, as reading the file gives it", async () => {
    const { reader } = await open();
    const at = fc.integer({ min: 0, max: LENGTH });
    await fc.assert(
      fc.asyncProperty(at, at, async (a, b) => {
        const [begin, end] = [Math.min(a, b), Math.max(a, b)];
        expect(Buffer.compare(await reader.read("f", begin, end), DATA.subarray(begin, end))).toBe(0);
      }),
      { numRuns: 40 },
    );
  });

  test("fetch each block once when ranges follow one another", async () => {
    const { reader, reads } = await open();
    for (let at = 0; at < LENGTH; at += 300_000) await reader.read("f", at, Math.min(at + 300_000, LENGTH));
    expect(reads.reduce((sum, [begin, end]) => sum + end - begin, 0)).toBe(LENGTH);
    expect(reads.every(([begin]) => begin % BLOCK_BYTES === 0)).toBe(true);
  });

  test("refuse a range when any byte of its blocks is damaged, also one that was not asked for", async () => {
    const { reader, spoil } = await open();
    spoil(BLOCK_BYTES + 5);
    expect((await reader.read("f", 0, 10)).length).toBe(10);
    await expect(reader.read("f", 2 * BLOCK_BYTES - 1, 2 * BLOCK_BYTES)).rejects.toThrow(
      "f: block 1 does not match its checksum",
    );
    await expect(reader.read("f", 0, LENGTH + 1)).rejects.toThrow(CheckpointError);
    await expect(reader.read("g", 0, 1)).rejects.toThrow(CheckpointError);
  });
});

import { describe, expect, test } from "bun:test";
import type { TensorReader } from "../../../../core/contracts/checkpointer.ts";
import type { DType } from "../../../../core/contracts/dtype.ts";
import { ConfigError } from "../../../../core/contracts/errors.ts";
import { openTokens } from "../../../../plugins/train/data/tokens-file.ts";

const OPTIONS = { path: "t.safetensors", steps: 3, rank: 0, worldSize: 1, vocabSize: 1000 };

/** A reader of one tensor whose element (step, row, column) is `100 * step + 10 * row + column`. */
function fakeReader(shape: readonly number[], dtype: DType = "int64", name = "tokens"): TensorReader {
  return {
    names: [name],
    has: (wanted) => wanted === name,
    info: () => ({ dtype, shape }),
    read: async (_, box) => {
      const [step, row] = box!.offsets;
      const [, rows, columns] = box!.sizes;
      return BigInt64Array.from({ length: rows! * columns! }, (_, i) =>
        BigInt(100 * step! + 10 * (row! + Math.floor(i / columns!)) + (i % columns!)),
      );
    },
    close: async () => {},
  };
}

describe("openTokens", () => {
  test("each rank gets its equal slice of the batch in order, each step its own rows", async () => {
    const reader = fakeReader([3, 4, 3]);
    const batches = openTokens(reader, { ...OPTIONS, rank: 1, worldSize: 2 });
    expect(batches).toMatchObject({ steps: 3, globalBatch: 4, rows: 2, seqLen: 2 });
    expect(await batches.read(2)).toEqual(Int32Array.of(220, 221, 222, 230, 231, 232));
    const whole = await openTokens(reader, OPTIONS).read(1);
    const parts = await Promise.all(
      [0, 1, 2, 3].map((rank) => openTokens(reader, { ...OPTIONS, rank, worldSize: 4 }).read(1)),
    );
    expect(parts.flatMap((part) => [...part])).toEqual([...whole]);
  });

  const failures: readonly [string, () => unknown, string][] = [
    [
      "a missing tensor",
      () => openTokens(fakeReader([3, 4, 3], "int64", "ids"), OPTIONS),
      'given tensors "ids"',
    ],
    [
      "another dtype",
      () => openTokens(fakeReader([3, 4, 3], "int32"), OPTIONS),
      'given "tokens" of int32 [3, 4, 3]',
    ],
    ["another rank", () => openTokens(fakeReader([3, 4]), OPTIONS), 'given "tokens" of int64 [3, 4]'],
    ["an empty batch", () => openTokens(fakeReader([3, 0, 3]), OPTIONS), "given"],
    ["rows of one token", () => openTokens(fakeReader([3, 4, 1]), OPTIONS), "allowed is int64"],
    [
      "an indivisible batch",
      () => openTokens(fakeReader([3, 4, 3]), { ...OPTIONS, worldSize: 3 }),
      "given a global batch of 4 over --world-size 3, allowed are world sizes that divide 4",
    ],
    [
      "too few steps",
      () => openTokens(fakeReader([3, 4, 3]), { ...OPTIONS, steps: 4 }),
      "given --steps 4, allowed is up to 3",
    ],
  ];
  test.each(failures)("%s is one line that names the option and the file", (_, open, message) => {
    let thrown: unknown;
    try {
      open();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(ConfigError);
    expect((thrown as ConfigError).message).toStartWith('cannot use --tokens "t.safetensors": ');
    expect((thrown as ConfigError).message).toContain(message);
    expect((thrown as ConfigError).message).not.toContain("\n");
  });

  test("a step outside the file and an id outside the vocabulary reject", async () => {
    const batches = openTokens(fakeReader([3, 4, 3]), { ...OPTIONS, vocabSize: 232 });
    await expect(batches.read(3)).rejects.toThrow("given step 3, allowed are steps from 0 to 2");
    await expect(batches.read(-1)).rejects.toThrow(ConfigError);
    await expect(batches.read(2)).rejects.toThrow(
      "step 2: given token 232, allowed are tokens from 0 to 231",
    );
    expect(await batches.read(1)).toHaveLength(12);
  });
});

import { expect, test } from "bun:test";
import fc from "fast-check";
import { hashFile } from "../../checkpoint/digest.ts";
import { startHashThread } from "../../checkpoint/hash-thread.ts";
import { generator } from "./layouts.ts";

test("the thread gives the digests that hashing here gives, file after file, also after one that was given up", async () => {
  const thread = startHashThread();
  try {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 3 * 2 ** 19 }), { maxLength: 4 }),
        fc.integer(),
        fc.boolean(),
        async (lengths, seed, givenUp) => {
          const random = generator(seed);
          const here = hashFile();
          const there = thread.hashFile();
          for (const length of lengths) {
            const bytes = new Uint8Array(new SharedArrayBuffer(length)).fill(random(256));
            here.update(bytes);
            await there.update(bytes);
          }
          if (!givenUp) expect(await there.finish()).toEqual(here.finish());
        },
      ),
      { numRuns: 30 },
    );
  } finally {
    await thread.close();
  }
  await expect(Promise.resolve(thread.hashFile().update(new Uint8Array(1)))).rejects.toThrow(
    "the hashing thread ended",
  );
});

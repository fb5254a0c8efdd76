import { expect, test } from "bun:test";
import fc from "fast-check";
import { hashFile } from "../../checkpoint/digest.ts";
import { hashThreads, sharedHashThreads, startHashThread } from "../../checkpoint/hash-thread.ts";
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

/** A stream, what of it is to be hashed, and in what kind of memory. */
const updates = fc.array(
  fc.record({
    stream: fc.integer({ min: 0, max: 3 }),
    length: fc.integer({ min: 0, max: 3 * 2 ** 18 }),
    memory: fc.constantFrom("shared", "part of shared", "plain", "part of plain"),
  }),
  { maxLength: 14 },
);

test("streams that take turns get the digests that hashing here gives, and one that is dropped disturbs none", async () => {
  const two = hashThreads(2);
  // Of every stream, after how many of all updates it is dropped; most never are.
  const drops = fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 4, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(updates, drops, fc.boolean(), fc.integer(), async (todo, dropped, waits, seed) => {
      const thread = seed % 2 === 0 ? sharedHashThreads : two;
      const random = generator(seed);
      const here = dropped.map(() => hashFile());
      const there = dropped.map(() => thread.hashFile());
      const under: unknown[] = [];
      for (const [i, { stream, length, memory }] of todo.entries()) {
        for (const [which, at] of dropped.entries()) if (at === i) there[which]!.drop();
        const begin = memory.startsWith("part") ? 1 + random(100) : 0;
        const Memory = memory.endsWith("shared") ? SharedArrayBuffer : ArrayBuffer;
        const bytes = new Uint8Array(new Memory(length + 2 * begin)).fill(random(256));
        const part = bytes.subarray(begin, begin + length).fill(random(256));
        here[stream]!.update(part);
        const update = there[stream]!.update(part);
        under.push(update);
        if (waits) await update;
      }
      const live = dropped.flatMap((at, stream) => (at < todo.length ? [] : [stream]));
      expect(await Promise.all(live.map((stream) => there[stream]!.finish()))).toEqual(
        live.map((stream) => here[stream]!.finish()),
      );
      await Promise.all(under);
    }),
    { numRuns: 40 },
  );
});

test("a stream that is dropped while its bytes are hashed lets go of them, also of later ones", async () => {
  const thread = startHashThread();
  try {
    const [dropped, other] = [thread.hashFile(), thread.hashFile()];
    const bytes = new Uint8Array(new SharedArrayBuffer(1000)).fill(7);
    const going = [dropped.update(bytes), other.update(bytes)];
    dropped.drop();
    dropped.drop();
    going.push(dropped.update(bytes), other.update(bytes));
    await Promise.all(going);
    const here = hashFile();
    here.update(bytes);
    here.update(bytes);
    expect(await other.finish()).toEqual(here.finish());
  } finally {
    await thread.close();
  }
  const late = thread.hashFile();
  late.drop();
  await late.update(new Uint8Array(1));
});

test("streams are spread over no more threads than there may be, and over those alone that live", async () => {
  const chosen: number[] = [];
  const ends: (() => void)[] = [];
  const { hashFile: hash } = hashThreads(2, (ended = () => undefined) => {
    const thread = ends.push(ended) - 1;
    const hashFile = () => {
      chosen.push(thread);
      return {
        update: async () => undefined,
        finish: async () => ({ length: 0, sha256: "", crc32: [] }),
        drop: () => undefined,
      };
    };
    return { hashFile, close: async () => undefined };
  });
  const [first, , third] = [hash(), hash(), hash()];
  expect(chosen).toEqual([0, 1, 0]);
  await first.finish();
  first.drop();
  third.drop();
  third.drop();
  // The first thread has none again, the second one has its own still.
  hash();
  hash();
  expect(chosen.slice(3)).toEqual([0, 0]);
  ends[1]!();
  hash();
  expect([chosen.at(-1), ends.length]).toEqual([2, 3]);
});

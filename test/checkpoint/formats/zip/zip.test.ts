import { describe, expect, test } from "bun:test";
import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { type ByteSource, memorySource } from "../../../../checkpoint/formats/byte-source.ts";
import { openZip } from "../../../../checkpoint/formats/zip/reader.ts";
import { zipWriter } from "../../../../checkpoint/formats/zip/writer.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";

const LIMIT = 1 << 20;

async function archive(records: readonly (readonly [string, Uint8Array])[]): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const zip = zipWriter(async (bytes) => void parts.push(bytes.slice()));
  for (const [name, payload] of records) await zip.add(name, payload);
  const length = await zip.finish();
  const bytes = Uint8Array.from(parts.flatMap((part) => [...part]));
  expect(bytes.length).toBe(length);
  return bytes;
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const SMALL = await archive([
  ["a/one", text("first")],
  ["a/two", text("second")],
]);

/** Where a record of a signature begins. */
function find(bytes: Uint8Array, signature: readonly number[], from = 0): number {
  const at = bytes.findIndex((_, i) => i >= from && signature.every((byte, k) => bytes[i + k] === byte));
  expect(at).toBeGreaterThanOrEqual(0);
  return at;
}

/** Changes one byte. */
function poke(bytes: Uint8Array, at: number, change: (byte: number) => number): undefined {
  bytes[at] = change(bytes[at]!);
}

const LOCAL = [0x50, 0x4b, 3, 4];
const CENTRAL = [0x50, 0x4b, 1, 2];
const END64 = [0x50, 0x4b, 6, 6];
const LOCATOR = [0x50, 0x4b, 6, 7];
const END = [0x50, 0x4b, 5, 6];

async function readAll(source: ByteSource): Promise<readonly [string, Uint8Array][]> {
  const zip = await openZip(source);
  return await Promise.all(
    zip.names.map(async (name) => [name, await zip.read(name, LIMIT)] as [string, Uint8Array]),
  );
}

describe("zip archives", () => {
  test("come back as they were written, every payload at a multiple of 64", async () => {
    const record = fc.tuple(fc.string({ minLength: 1, maxLength: 90 }), fc.uint8Array({ maxLength: 300 }));
    const records = fc.uniqueArray(record, { selector: ([name]) => name, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(records, async (records) => {
        const source = memorySource(await archive(records));
        expect(await readAll(source)).toEqual(records);
        const zip = await openZip(source);
        for (const [name] of records) expect((await zip.find(name))!.begin % 64).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  test("without zip64 records, as Python's zipfile writes small ones, are read too", async () => {
    const at = find(SMALL, END64);
    const plain = Uint8Array.from([...SMALL.subarray(0, at), ...SMALL.subarray(find(SMALL, END))]);
    expect(await readAll(memorySource(plain))).toEqual([
      ["a/one", text("first")],
      ["a/two", text("second")],
    ]);
  });

  test("beyond 4 GiB are addressed by their zip64 fields", async () => {
    // 5 GiB of nothing, then the directory of a record that lies behind 4 GiB.
    const parts: { at: number; bytes: Uint8Array }[] = [];
    const begin = 5 * 2 ** 30;
    const name = text("a/far");
    const local = new Uint8Array(30 + name.length);
    local.set(LOCAL);
    local[26] = name.length;
    local.set(name, 30);
    const payload = text("payload");
    parts.push({ at: begin, bytes: local }, { at: begin + local.length, bytes: payload });
    const central = new Uint8Array(46 + name.length + 12);
    const view = new DataView(central.buffer);
    central.set(CENTRAL);
    view.setUint32(20, payload.length, true);
    view.setUint32(24, payload.length, true);
    central[28] = name.length;
    central[30] = 12;
    view.setUint32(42, 0xffffffff, true);
    central.set(name, 46);
    view.setUint16(46 + name.length, 1, true);
    view.setUint16(48 + name.length, 8, true);
    view.setBigUint64(50 + name.length, BigInt(begin), true);
    const directory = begin + local.length + payload.length;
    parts.push({ at: directory, bytes: central });
    const ends = SMALL.slice(find(SMALL, END64));
    const end = new DataView(ends.buffer);
    end.setBigUint64(24, 1n, true);
    end.setBigUint64(32, 1n, true);
    end.setBigUint64(40, BigInt(central.length), true);
    end.setBigUint64(48, BigInt(directory), true);
    end.setBigUint64(56 + 8, BigInt(directory + central.length), true);
    end.setUint16(56 + 20 + 10, 1, true);
    end.setUint32(56 + 20 + 12, central.length, true);
    end.setUint32(56 + 20 + 16, 0xffffffff, true);
    parts.push({ at: directory + central.length, bytes: ends });
    const length = directory + central.length + ends.length;
    const source: ByteSource = {
      length,
      async read(from, to) {
        const bytes = new Uint8Array(to - from);
        for (const part of parts) {
          for (let i = Math.max(from, part.at); i < Math.min(to, part.at + part.bytes.length); i++) {
            bytes[i - from] = part.bytes[i - part.at]!;
          }
        }
        return bytes;
      },
    };
    expect(await (await openZip(source)).find("a/far")).toMatchObject({
      begin: begin + local.length,
      end: directory,
    });
  });

  const damages: readonly (readonly [string, (bytes: Uint8Array) => Uint8Array | undefined, RegExp])[] = [
    ["that are empty", () => new Uint8Array(0), /no archive/],
    ["with bytes behind the end", (b) => Uint8Array.from([...b, 0]), /does not end/],
    ["with bytes in front", (b) => Uint8Array.from([0, ...b]), /zip64 end record is not before its locator/],
    ["with a comment", (b) => poke(b, b.length - 2, () => 1), /without comment/],
    ["that were cut", (b) => b.subarray(0, b.length - 30), /does not end/],
    ["with compressed records", (b) => poke(b, find(b, CENTRAL) + 10, () => 8), /compressed/],
    ["with a local header that says compressed", (b) => poke(b, find(b, LOCAL) + 8, () => 8), /compressed/],
    ["with encrypted records", (b) => poke(b, find(b, CENTRAL) + 8, (byte) => byte | 1), /encrypted/],
    ["with sizes that differ", (b) => poke(b, find(b, CENTRAL) + 20, (byte) => byte + 1), /its sizes differ/],
    [
      "with records over others",
      (b) => void b.set([0, 0, 0, 0], find(b, CENTRAL, find(b, CENTRAL) + 1) + 42),
      /over another/,
    ],
    [
      "with records that reach into others",
      (b) => void b.set([200, 0, 0, 0, 200, 0, 0, 0], find(b, CENTRAL) + 20),
      /over another/,
    ],
    ["with records outside", (b) => void b.set([0xff, 0xff, 0xff, 0x0f], find(b, CENTRAL) + 42), /outside/],
    [
      "with two records of one name",
      (b) => void b.set(text("a/one"), find(b, CENTRAL, find(b, CENTRAL) + 1) + 46),
      /comes twice/,
    ],
    [
      "with another name in the header",
      (b) => void b.set(text("a/six"), find(b, LOCAL) + 30),
      /another name/,
    ],
    ["with another name that is no UTF-8", (b) => poke(b, find(b, CENTRAL) + 46, () => 0xff), /UTF-8/],
    ["whose payload was changed", (b) => poke(b, 64, (byte) => byte ^ 1), /checksum/],
    ["with a million records", (b) => void b.set([0x40, 0x42, 0x0f, 0], find(b, END64) + 32), /contradict/],
    [
      "whose locator points elsewhere",
      (b) => poke(b, find(b, LOCATOR) + 8, (byte) => byte ^ 1),
      /not before its locator/,
    ],
    ["without a zip64 end record", (b) => poke(b, find(b, END64), () => 0), /no zip64 end record/],
  ];
  test.each(damages)("%s are refused", async (_, damage, problem) => {
    const bytes = SMALL.slice();
    const damaged = damage(bytes) ?? bytes;
    const outcome = readAll(memorySource(damaged));
    await expect(outcome).rejects.toThrow(problem);
    await expect(outcome).rejects.toBeInstanceOf(CheckpointError);
  });

  test("that would unfold to a thousand times their size are refused before anything is unfolded", async () => {
    const packed = new Uint8Array(deflateRawSync(new Uint8Array(1 << 20)));
    const bomb = await archive([["a/data", packed]]);
    bomb[find(bomb, CENTRAL) + 10] = 8;
    bomb.set([0, 0, 0x10, 0], find(bomb, CENTRAL) + 24);
    await expect(openZip(memorySource(bomb))).rejects.toThrow(/compressed/);
  });

  test("give no record that is larger than its reader wants", async () => {
    const zip = await openZip(memorySource(SMALL));
    await expect(zip.read("a/one", 4)).rejects.toThrow("a/one has 5 bytes, allowed are 4");
    await expect(zip.read("a/three", 4)).rejects.toThrow('no record "a/three"');
  });
});

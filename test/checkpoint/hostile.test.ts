import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { sha256Hex } from "../../checkpoint/digest.ts";
import { decodeManifest, encodeManifest, type Manifest } from "../../checkpoint/manifest.ts";
import { encodeBody } from "../../checkpoint/manifest-body.ts";
import { encodeMsgpack, type Plain } from "../../checkpoint/msgpack.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { runRanks, settleRanks } from "./ranks.ts";
import { cutBox, dimZero, emptyState, patternTensor, shardedState } from "./states.ts";

const NAMES = [
  "__proto__",
  "constructor",
  "toString",
  "a.b",
  "a",
  "ünïcode",
  "x\0y",
  "../../etc/passwd",
  "/abs",
  "C:\\x",
];

/** Paths that must never be a file of a checkpoint. */
const PATHS = [
  "",
  ".",
  "..",
  "../a",
  "a/../b",
  "a/b",
  "/etc/passwd",
  "//host/share",
  "\\\\host\\share",
  "C:",
  "C:\\a",
  "c:a",
  "a\\b",
  "a\0",
  "a\n",
  "a ",
  "a.",
  ".a",
  "-a",
  "A",
  "é",
  "é",
  "a..b",
  "%2e%2e",
  "a%2fb",
  "a:b",
  "a*",
  "a?",
  "a|b",
  "<a>",
  '"a"',
  "~",
  "$HOME",
  "`a`",
  "a;b",
  "__proto__",
  "constructor ",
  "x".repeat(129),
  "\u202ea",
  "a\u200b",
];

/** The smallest manifest with one tensor, changed before it is encoded with right digests. */
function forged(change: (body: Record<string, unknown>) => void, version = 2): Uint8Array {
  const manifest: Manifest = {
    step: 1,
    worldSize: 1,
    createdAt: 0,
    tensors: [
      {
        name: "w",
        dtype: "float32",
        shape: [2],
        chunks: [{ offsets: [0], sizes: [2], file: "a.bin", begin: 0, end: 8 }],
      },
    ],
    files: [{ name: "a.bin", length: 8, sha256: "0".repeat(64), block: 2 ** 20, crc32: [1] }],
    values: {},
    rankValues: [{}],
  };
  const body = structuredClone(encodeBody(manifest)) as Record<string, unknown>;
  change(body);
  const bytes = encodeMsgpack(body as Plain);
  return encodeMsgpack({ format: "fsdp-checkpoint", version, sha256: sha256Hex(bytes), body: bytes });
}

describe("a hostile manifest", () => {
  test("is sound before it is changed", () => {
    expect(decodeManifest(forged(() => undefined)).tensors.length).toBe(1);
  });

  test.each(PATHS)("cannot name a file %p", (name) => {
    const bytes = forged((body) => Object.assign((body.files as object[])[0]!, { name }));
    expect(() => decodeManifest(bytes)).toThrow(CheckpointError);
    expect(() => decodeManifest(bytes)).toThrow("not a valid file name");
  });

  const large = 2 ** 53 - 1;
  const claims: [string, (body: Record<string, unknown>) => void][] = [
    ["a million ranks and one's values", (body) => Object.assign(body, { worldSize: 1_000_000 })],
    ["2^53 ranks", (body) => Object.assign(body, { worldSize: large })],
    ["a file of 2^53 bytes", (body) => Object.assign((body.files as object[])[0]!, { length: large })],
    [
      "a tensor of 2^53 elements",
      (body) => Object.assign((body.tensors as object[])[0]!, { shape: [large] }),
    ],
    [
      "a shape whose product overflows",
      (body) => Object.assign((body.tensors as object[])[0]!, { shape: [2 ** 30, 2 ** 30, 2 ** 30] }),
    ],
    [
      "a shape whose product overflows and is nothing",
      (body) =>
        Object.assign((body.tensors as object[])[0]!, {
          shape: [large, large, 0],
          chunks: [0, 0, 0, 0, 0, 2, 1, 1],
        }),
    ],
    [
      "a range before its file",
      (body) => Object.assign((body.tensors as object[])[0]!, { chunks: [0, -8, 0, 2] }),
    ],
    [
      "a range beyond its file",
      (body) => Object.assign((body.tensors as object[])[0]!, { chunks: [0, large, 0, 2] }),
    ],
    ["blocks of one byte", (body) => Object.assign((body.files as object[])[0]!, { block: 1 })],
    ["blocks of no bytes", (body) => Object.assign((body.files as object[])[0]!, { block: 0 })],
    ["no tensors field", (body) => void Reflect.deleteProperty(body, "tensors")],
    ["tensors that are a map", (body) => Object.assign(body, { tensors: { length: 2 ** 32 } })],
    [
      "a hundred thousand overlapping chunks",
      (body) => {
        const chunks = Array.from({ length: 100_000 }, () => [0, 0, 0, 2]).flat();
        Object.assign((body.tensors as object[])[0]!, { chunks });
      },
    ],
  ];
  test.each(claims)("that claims %s is refused", (_, change) => {
    expect(() => decodeManifest(forged(change))).toThrow(CheckpointError);
  });

  test("of any bytes at all ends in a manifest or a typed error", () => {
    const good = forged(() => undefined);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        (edits, inside) => {
          // Inside: the digest is made right again, so that the body's own checks are met.
          const bytes = inside ? mutatedBody(edits) : good.slice();
          if (!inside) for (const [at, byte] of edits) bytes[at % bytes.length] = byte;
          try {
            expect(decodeManifest(bytes).tensors.length).toBeGreaterThanOrEqual(0);
          } catch (error) {
            expect(error).toBeInstanceOf(CheckpointError);
          }
        },
      ),
      { numRuns: 3000 },
    );
  });

  test("that is too long is refused before it is read", async () => {
    const store = memoryStore("memory:too-long");
    await runRanks(1, (collective) =>
      nativeCheckpointer(store).save(shardedState([], dimZero(1), 0), 1, collective),
    );
    let read = 0;
    const lying = {
      ...store,
      size: async () => 2 ** 40,
      read: async (name: string, file: string, begin: number, end: number) => {
        read += end - begin;
        return await store.read(name, file, begin, end);
      },
    };
    const [result] = await settleRanks(1, (collective) =>
      nativeCheckpointer(lying).load({ tensors: [] }, "step-00000001", collective),
    );
    expect(String((result as PromiseRejectedResult).reason)).toContain("allowed are 67108864");
    expect(read).toBe(0);
    expect(() => decodeManifest(new Uint8Array(64 * 2 ** 20 + 1))).toThrow(CheckpointError);
  });
});

function mutatedBody(edits: readonly (readonly [number, number])[]): Uint8Array {
  const body = encodeMsgpack(encodeBody(decodeManifest(forged(() => undefined))) as Plain);
  for (const [at, byte] of edits) body[at % body.length] = byte;
  return encodeMsgpack({ format: "fsdp-checkpoint", version: 2, sha256: sha256Hex(body), body });
}

test("tensors and values may have any name there is: a name is never a path or a key of an object", async () => {
  const store = memoryStore("memory:names");
  const tensors = NAMES.map((name) => patternTensor(name, "float32", [4]));
  const values = JSON.parse('{"__proto__":{"polluted":true},"constructor":1}');
  await runRanks(2, (collective) =>
    nativeCheckpointer(store).save(shardedState(tensors, dimZero(2), collective.rank, values), 1, collective),
  );
  expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
  await runRanks(3, async (collective) => {
    const { state, filled } = emptyState(tensors, dimZero(3), collective.rank);
    const loaded = await nativeCheckpointer(store).load(state, "latest", collective, { fit: "strict" });
    for (const { tensor, box, bytes } of filled) expect(bytes).toEqual(cutBox(tensor, box));
    expect(loaded.values).toEqual(values);
  });
  expect(
    encodeManifest(
      decodeManifest(
        await store.read(
          "step-00000001",
          "manifest.msgpack",
          0,
          await store.size("step-00000001", "manifest.msgpack"),
        ),
      ),
    ).length,
  ).toBeGreaterThan(0);
});

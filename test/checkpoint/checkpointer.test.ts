import { afterAll, describe, expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { openSafetensors } from "../../checkpoint/formats/safetensors/reader.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import type { CheckpointStore, ShardedState, Value } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { randomLayout, tensorsArbitrary } from "./layouts.ts";
import { runRanks, settleRanks } from "./ranks.ts";
import {
  cutBox,
  dimZero,
  emptyState,
  type FullTensor,
  type Layout,
  patternTensor,
  replicated,
  shardedState,
} from "./states.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-checkpointer-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const MODEL = [
  patternTensor("wte", "float32", [11, 6]),
  patternTensor("bias", "bfloat16", [5]),
  patternTensor("row", "float32", [1, 8]),
  patternTensor("step", "int64", []),
  patternTensor("none", "float32", [0, 3]),
];

/** Parsed, since in a literal `__proto__` would set the prototype. */
const VALUES = JSON.parse('{"lr":0.5,"nested":{"__proto__":[1,null,"x"]}}') as Record<string, Value>;

function save(
  store: CheckpointStore,
  tensors: readonly FullTensor[],
  layout: Layout,
  size: number,
  step: number,
) {
  const checkpointer = nativeCheckpointer(store, { now: () => 1234 });
  return runRanks(size, (collective) =>
    checkpointer.save(shardedState(tensors, layout, collective.rank, VALUES), step, collective),
  );
}

async function loadAndCompare(
  store: CheckpointStore,
  tensors: readonly FullTensor[],
  layout: Layout,
  size: number,
  name: string,
) {
  return runRanks(size, async (collective) => {
    const { state, filled } = emptyState(tensors, layout, collective.rank);
    const loaded = await nativeCheckpointer(store).load(state, name, collective);
    expect(filled.length).toBe(state.tensors.reduce((sum, tensor) => sum + tensor.pieces.length, 0));
    for (const { tensor, box, bytes } of filled) expect(bytes).toEqual(cutBox(tensor, box));
    return loaded;
  });
}

describe("resharding", () => {
  test("any layout at any world size loads bitwise into any other", async () => {
    const sizes = fc.integer({ min: 1, max: 5 });
    await fc.assert(
      fc.asyncProperty(
        tensorsArbitrary,
        sizes,
        sizes,
        fc.integer(),
        fc.integer(),
        async (tensors, from, to, a, b) => {
          const store = memoryStore("memory:reshard");
          await save(store, tensors, randomLayout(from, a), from, 1);
          await loadAndCompare(store, tensors, randomLayout(to, b), to, "latest");
          expect(await nativeCheckpointer(store).verify("step-00000001")).toEqual([]);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("ranks that own nothing, and dim-0 shards of uneven tensors, round-trip through a directory", async () => {
    const store = directoryStore(join(folder, "uneven"));
    const [info] = await save(store, MODEL, dimZero(4), 4, 3);
    const [loaded] = await loadAndCompare(store, MODEL, dimZero(3), 3, "step-00000003");
    expect(loaded!.info).toEqual(info!);
    expect(loaded!.info).toMatchObject({ name: "step-00000003", step: 3, worldSize: 4, createdAt: 1234 });
    const files = await store.files(info!.name);
    const sizes = await Promise.all(files.map((file) => store.size(info!.name, file)));
    expect(info!.bytes).toBe(sizes.reduce((a, b) => a + b, 0));
    expect(files).toEqual([
      "manifest.msgpack",
      ...[0, 1, 2, 3].map((rank) => `rank-0000${rank}.safetensors`),
    ]);
  });

  test("pieces beyond one block and one batch load bitwise by rows and by columns", async () => {
    const tensors = [patternTensor("big", "float32", [3000, 1000]), patternTensor("small", "uint8", [77])];
    const store = memoryStore("memory:big");
    await save(store, tensors, dimZero(2), 2, 1);
    const columns: Layout = ({ shape }, rank) =>
      shape.length === 2
        ? [{ offsets: [1, rank * 300], sizes: [2990, 300] }]
        : [{ offsets: [5], sizes: [70] }];
    await runRanks(3, async (collective) => {
      const { state, filled } = emptyState(tensors, columns, collective.rank);
      await nativeCheckpointer(store).load(state, "latest", collective);
      for (const { tensor, box, bytes } of filled) expect(Buffer.compare(bytes, cutBox(tensor, box))).toBe(0);
    });
  });
});

describe("what is saved", () => {
  test("values and each rank's values come back, whatever their keys", async () => {
    const store = memoryStore("memory:values");
    await save(store, MODEL, dimZero(3), 3, 1);
    const [loaded] = await loadAndCompare(store, MODEL, replicated, 1, "latest");
    expect(loaded!.values).toEqual(VALUES);
    expect(Object.keys(loaded!.values.nested as object)).toEqual(["__proto__"]);
    expect(loaded!.rankValues).toEqual([{ rank: 0 }, { rank: 1 }, { rank: 2 }]);
  });

  test("a box that several ranks hold is written once, and by more than one rank in all", async () => {
    const tensors = Array.from({ length: 24 }, (_, i) => patternTensor(`p${i}`, "float32", [8]));
    const store = directoryStore(join(folder, "replicas"));
    const halves: Layout = (_, rank) => [{ offsets: [(rank % 2) * 4], sizes: [4] }];
    for (const [step, layout] of [replicated, halves].entries()) {
      await save(store, tensors, layout, 4, step);
      const name = `step-0000000${step}`;
      const counts: number[] = [];
      for (let rank = 0; rank < 4; rank++) {
        const reader = await openSafetensors(join(folder, "replicas", name, `rank-0000${rank}.safetensors`));
        counts.push(reader.names.reduce((sum, tensor) => sum + reader.info(tensor).shape[0]!, 0));
        await reader.close();
      }
      expect(counts.reduce((a, b) => a + b, 0)).toBe(24 * 8);
      expect(counts).toEqual(Array(4).fill((24 * 8) / 4));
      await loadAndCompare(store, tensors, dimZero(3), 3, name);
    }
  });

  test("a rank's file is safetensors that names whole tensors plainly and parts by their offsets", async () => {
    const store = directoryStore(join(folder, "names"));
    await save(store, MODEL, dimZero(2), 2, 0);
    const reader = await openSafetensors(join(folder, "names", "step-00000000", "rank-00000.safetensors"));
    expect(reader.names).toEqual(["step", "row", "wte@0,0", "bias@0"]);
    expect(reader.header.dataBegin % 64).toBe(0);
    expect(JSON.parse(reader.header.metadata.get("chunks")!)["wte@0,0"]).toEqual({
      tensor: "wte",
      shape: [11, 6],
      offsets: [0, 0],
    });
    await reader.close();
  });

  test("equal states give equal bytes, and data files do not depend on the step", async () => {
    const store = memoryStore("memory:equal");
    await save(store, MODEL, dimZero(2), 2, 1);
    await save(store, MODEL, dimZero(2), 2, 2);
    const again = memoryStore("memory:equal-again");
    await save(again, MODEL, dimZero(2), 2, 1);
    const all = async (from: CheckpointStore, name: string, file: string) =>
      from.read(name, file, 0, await from.size(name, file));
    for (const file of await store.files("step-00000001")) {
      const bytes = await all(store, "step-00000001", file);
      expect(await all(again, "step-00000001", file)).toEqual(bytes);
      if (file !== "manifest.msgpack") expect(await all(store, "step-00000002", file)).toEqual(bytes);
    }
  });
});

describe("what is listed", () => {
  test("checkpoints come oldest first, latest is the highest step, and deleted ones are gone", async () => {
    const store = directoryStore(join(folder, "list"));
    const checkpointer = nativeCheckpointer(store);
    expect(await checkpointer.list()).toEqual([]);
    for (const step of [100_000_000, 7, 99_999_999]) await save(store, MODEL, replicated, 1, step);
    expect((await checkpointer.list()).map((info) => info.step)).toEqual([7, 99_999_999, 100_000_000]);
    const [loaded] = await loadAndCompare(store, MODEL, dimZero(2), 2, "latest");
    expect(loaded!.info.step).toBe(100_000_000);
    await checkpointer.delete("step-100000000");
    expect((await checkpointer.list()).map((info) => info.step)).toEqual([7, 99_999_999]);
    expect((await readdir(join(folder, "list"))).sort()).toEqual(["step-00000007", "step-99999999"]);
  });

  test("an empty store has no latest, and an unknown name is refused on every rank", async () => {
    const store = memoryStore("memory:empty");
    for (const name of ["latest", "step-00000001", "../x"]) {
      const results = await settleRanks(2, (collective) =>
        nativeCheckpointer(store).load({ tensors: [] }, name, collective),
      );
      for (const result of results) expect(reasonOf(result)).toBeInstanceOf(CheckpointError);
    }
  });
});

describe("faults before memory is touched", () => {
  const cases: [string, readonly FullTensor[], string[]][] = [
    [
      "missing tensors are all named",
      [...MODEL, patternTensor("a", "bool", [1]), patternTensor("b", "bool", [1])],
      ["tensor a: missing", "tensor b: missing"],
    ],
    [
      "another dtype is refused",
      [...MODEL.slice(1), patternTensor("wte", "float16", [11, 6])],
      ["tensor wte: saved as float32, wanted as float16"],
    ],
    [
      "another shape is refused",
      [...MODEL.slice(1), patternTensor("wte", "float32", [6, 11])],
      ["tensor wte: saved with shape [11,6], wanted with [6,11]"],
    ],
  ];
  test.each(cases)("%s", async (_, wanted, messages) => {
    const store = memoryStore("memory:faults");
    await save(store, MODEL, dimZero(2), 2, 1);
    let written = 0;
    const results = await settleRanks(2, (collective) => {
      // Rank 0 asks for nothing wrong; it must fail with rank 1 and write nothing.
      const { state, filled } = emptyState(
        collective.rank === 0 ? MODEL : wanted,
        dimZero(2),
        collective.rank,
      );
      return nativeCheckpointer(store)
        .load(state, "latest", collective)
        .finally(() => {
          written += filled.length;
        });
    });
    for (const result of results) {
      for (const message of messages) expect(reasonOf(result).message).toContain(message);
      expect(reasonOf(result).message).toStartWith("load of latest: rank 1: ");
    }
    expect(written).toBe(0);
  });

  test("a save whose ranks leave holes, overlap or disagree names every fault and commits nothing", async () => {
    const store = memoryStore("memory:holes");
    const shape = [4, 2];
    const boxes: Record<string, (rank: number) => number[][]> = {
      hole: (rank) => (rank === 0 ? [[0, 0, 2, 2]] : []),
      overlap: (rank) => [[rank, 0, 3, 2]],
      fine: (rank) => [[2 * rank, 0, 2, 2]],
    };
    const tensors = Object.keys(boxes).map((name) => patternTensor(name, "float32", shape));
    const results = await settleRanks(2, (collective) => {
      const state = shardedState(
        tensors,
        ({ name }, rank) =>
          boxes[name]!(rank).map(([a, b, c, d]) => ({ offsets: [a!, b!], sizes: [c!, d!] })),
        collective.rank,
      );
      const clash = shardedState(
        [patternTensor("clash", collective.rank ? "int32" : "float32", [0])],
        () => [],
        collective.rank,
      );
      return nativeCheckpointer(store).save(
        { ...state, tensors: [...state.tensors, ...clash.tensors] },
        1,
        collective,
      );
    });
    for (const result of results) {
      const { message } = reasonOf(result);
      expect(message).toContain("tensor hole: chunks cover 4 of 8 elements");
      expect(message).toContain("tensor overlap: chunks [0:3, 0:2] and [1:4, 0:2] overlap");
      expect(message).toContain("tensor clash: float32 [0] on rank 0, int32 [0] on rank 1");
      expect(message).not.toContain("fine");
    }
    expect(await store.list()).toEqual([]);
  });
});

describe("failures", () => {
  test.each([0, 1, 2])(
    "when rank %d cannot read a piece, every rank throws the same error and the list is unchanged",
    async (bad) => {
      const root = join(folder, `failing-${bad}`);
      const store = directoryStore(root);
      await save(store, MODEL, dimZero(3), 3, 1);
      const results = await settleRanks(3, (collective) => {
        const state = shardedState(MODEL, dimZero(3), collective.rank);
        return nativeCheckpointer(store).save(
          collective.rank === bad ? failing(state) : state,
          2,
          collective,
        );
      });
      const messages = results.map((result) => reasonOf(result).message);
      expect(messages).toEqual(Array(3).fill(`save of step 2: rank ${bad}: device lost`));
      for (const result of results) expect(reasonOf(result)).toBeInstanceOf(CheckpointError);
      expect(await readdir(root)).toEqual(["step-00000001"]);
      await loadAndCompare(store, MODEL, dimZero(2), 2, "latest");
    },
  );

  test("a step that exists is refused on every rank and left as it was", async () => {
    const store = directoryStore(join(folder, "twice"));
    await save(store, MODEL, dimZero(2), 2, 1);
    const other = [patternTensor("other", "float32", [4])];
    const results = await settleRanks(2, (collective) =>
      nativeCheckpointer(store).save(shardedState(other, dimZero(2), collective.rank), 1, collective),
    );
    for (const result of results) expect(reasonOf(result).message).toContain("the name is taken");
    await loadAndCompare(store, MODEL, dimZero(2), 2, "step-00000001");
  });

  test("of two jobs that save one step at once exactly one wins, on all of its ranks", async () => {
    const store = directoryStore(join(folder, "race"));
    for (let step = 0; step < 5; step++) {
      const jobs = await Promise.all(
        ["a", "b"].map((name) =>
          settleRanks(2, (collective) =>
            nativeCheckpointer(store).save(
              shardedState([patternTensor(name, "float32", [9])], dimZero(2), collective.rank),
              step,
              collective,
            ),
          ),
        ),
      );
      const won = jobs.map((results) => results.map((result) => result.status === "fulfilled"));
      expect(won.map((job) => job[0])).toEqual(won.map((job) => job[1]));
      expect(won.filter((job) => job[0]).length).toBe(1);
      expect(await nativeCheckpointer(store).verify(`step-0000000${step}`)).toEqual([]);
    }
    expect((await readdir(join(folder, "race"))).length).toBe(5);
  });

  test("ranks that disagree on the step fail together", async () => {
    const store = memoryStore("memory:steps");
    const results = await settleRanks(2, (collective) =>
      nativeCheckpointer(store).save(
        shardedState(MODEL, dimZero(2), collective.rank),
        collective.rank,
        collective,
      ),
    );
    for (const result of results)
      expect(reasonOf(result).message).toContain(
        "rank 1: it saves step-00000001 where rank 0 saves step-00000000",
      );
    expect(await store.list()).toEqual([]);
  });

  test("a piece that gives the wrong number of bytes, a bad name, and a bad step are refused", async () => {
    const store = memoryStore("memory:bad-state");
    const state = shardedState([patternTensor("t", "float32", [4])], replicated, 0);
    const short = {
      ...state,
      tensors: state.tensors.map((tensor) => ({
        ...tensor,
        pieces: tensor.pieces.map((piece) => ({ ...piece, read: async () => new Float32Array(3) })),
      })),
    };
    const attempts: [ShardedState, number, string][] = [
      [short, 1, "a piece gave 12 bytes, its box takes 16"],
      [shardedState([patternTensor("", "float32", [4])], replicated, 0), 1, 'tensor ""'],
      [shardedState([patternTensor("__metadata__", "float32", [4])], replicated, 0), 1, "reserved"],
      [{ ...state, tensors: [...state.tensors, ...state.tensors] }, 1, "tensor t: given twice"],
      [{ ...state, values: { f: (() => 1) as unknown as null } }, 1, "function cannot be written"],
      [state, 1.5, "step: 1.5"],
    ];
    for (const [given, step, message] of attempts) {
      const [result] = await settleRanks(1, (collective) =>
        nativeCheckpointer(store).save(given, step, collective),
      );
      expect(reasonOf(result!)).toBeInstanceOf(CheckpointError);
      expect(reasonOf(result!).message).toContain(message);
    }
    expect(await store.list()).toEqual([]);
  });
});

function failing(state: ShardedState): ShardedState {
  const read = async (): Promise<never> => {
    throw new CheckpointError("device lost");
  };
  return {
    ...state,
    tensors: state.tensors.map((tensor) => ({
      ...tensor,
      pieces: tensor.pieces.map((piece) => ({ ...piece, read })),
    })),
  };
}

function reasonOf(result: PromiseSettledResult<unknown>): Error {
  if (result.status === "fulfilled") throw new Error("it succeeded");
  return result.reason as Error;
}

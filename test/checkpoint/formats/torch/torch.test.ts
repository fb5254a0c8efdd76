import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { volume, wholeBox } from "../../../../checkpoint/boxes.ts";
import { memorySource } from "../../../../checkpoint/formats/byte-source.ts";
import { call, global, type PickleValue, tuple } from "../../../../checkpoint/formats/pickle/values.ts";
import { writePickle } from "../../../../checkpoint/formats/pickle/writer.ts";
import { openTorchFile, type TorchFile } from "../../../../checkpoint/formats/torch/reader.ts";
import {
  type TensorValue,
  tensorOf,
  tensorValue,
} from "../../../../checkpoint/formats/torch/tensor-value.ts";
import { writeTorchFile } from "../../../../checkpoint/formats/torch/writer.ts";
import { zipWriter } from "../../../../checkpoint/formats/zip/writer.ts";
import { bytesOf, STORED_DTYPES, type StoredDType } from "../../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";
import { generator } from "../../layouts.ts";
import { cutBox, patternTensor } from "../../states.ts";

async function written(value: PickleValue, storage?: Uint8Array): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  await writeTorchFile(async (bytes) => void parts.push(bytes.slice()), value, storage);
  return new Uint8Array(Buffer.concat(parts));
}

/** A file of the given records. */
async function fileOf(records: Readonly<Record<string, Uint8Array | string>>): Promise<TorchFile> {
  const parts: Uint8Array[] = [];
  const zip = zipWriter(async (bytes) => void parts.push(bytes.slice()));
  for (const [name, payload] of Object.entries(records)) {
    await zip.add(name, typeof payload === "string" ? new TextEncoder().encode(payload) : payload);
  }
  await zip.finish();
  return await openTorchFile(memorySource(new Uint8Array(Buffer.concat(parts))));
}

/** What torch.save makes of any view of a storage. */
function rebuilt(options: {
  readonly storage?: string;
  readonly numel: number | PickleValue;
  readonly offset?: number | PickleValue;
  readonly shape: readonly PickleValue[];
  readonly strides: readonly PickleValue[];
}): PickleValue {
  const { storage = "torch FloatStorage", numel, offset = 0, shape, strides } = options;
  const id = tuple("storage", global(storage), "0", "cpu", numel);
  const persistent: PickleValue = { kind: "persistent", id };
  const hooks = call("collections OrderedDict");
  return call(
    "torch._utils _rebuild_tensor_v2",
    persistent,
    offset,
    tuple(...shape),
    tuple(...strides),
    false,
    hooks,
  );
}

function tensorIn(file: TorchFile): TensorValue {
  const tensor = tensorOf(file.value);
  if (tensor === undefined) throw new CheckpointError("it is no tensor");
  return tensor;
}

describe("what torch.save writes", () => {
  test("holds tensors of every dtype, which come back bitwise, whole and by any box", async () => {
    const spec = fc.record({
      dtype: fc.constantFrom(...(Object.keys(STORED_DTYPES) as StoredDType[])),
      shape: fc.array(fc.integer({ min: 0, max: 6 }), { maxLength: 4 }),
      seed: fc.integer(),
    });
    await fc.assert(
      fc.asyncProperty(spec, async ({ dtype, shape, seed }) => {
        const random = generator(seed);
        const tensor = patternTensor("t", dtype, shape);
        const file = await openTorchFile(
          memorySource(await written(tensorValue(dtype, shape), tensor.bytes)),
        );
        const stored = tensorIn(file);
        expect(stored).toMatchObject({ dtype, shape });
        expect(bytesOf(await file.read(stored))).toEqual(tensor.bytes);
        const offsets = shape.map((extent) => random(extent + 1));
        const box = { offsets, sizes: shape.map((extent, d) => random(extent - offsets[d]! + 1)) };
        const target: Uint8Array = new Uint8Array(volume(box.sizes) * STORED_DTYPES[dtype].bytes);
        await file.place(stored, box, target, box);
        expect(target).toEqual(cutBox(tensor, box));
      }),
      { numRuns: 150 },
    );
  });

  test("may be any view of a storage: transposed, offset, channels last", async () => {
    const view = fc.record({
      sizes: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
      order: fc.integer(),
      offset: fc.integer({ min: 0, max: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(view, async ({ sizes, order, offset }) => {
        // Axes in a random order of a row-major storage.
        const random = generator(order);
        const axes = sizes.map((_, d) => d).sort(() => random(3) - 1);
        const rowMajor = sizes.map((_, d) => volume(sizes.slice(d + 1)));
        const [shape, strides] = [axes.map((d) => sizes[d]!), axes.map((d) => rowMajor[d]!)];
        const storage = Float32Array.from({ length: volume(sizes) + offset }, (_, i) => i);
        const value = rebuilt({ numel: storage.length, offset, shape, strides });
        const file = await openTorchFile(memorySource(await written(value, bytesOf(storage))));
        // The plain twin: every index by its strides.
        const due = Array.from({ length: volume(shape) }, (_, i) => {
          let [rest, at] = [i, offset];
          for (let d = shape.length - 1; d >= 0; d--) {
            at += (rest % shape[d]!) * strides[d]!;
            rest = Math.floor(rest / shape[d]!);
          }
          return at;
        });
        expect([...((await file.read(tensorIn(file))) as Float32Array)]).toEqual(due);
      }),
      { numRuns: 100 },
    );
  });

  test("is read whatever its folder is called, and as a parameter too", async () => {
    const tensor = rebuilt({ numel: 2, shape: [2], strides: [1] });
    const parameter = call("torch._utils _rebuild_parameter", tensor, true, call("collections OrderedDict"));
    const file = await fileOf({
      "weights_1/data.pkl": writePickle(parameter),
      "weights_1/data/0": bytesOf(Float32Array.of(1, 2)),
      "weights_1/version": "3\n",
    });
    expect([...((await file.read(tensorIn(file))) as Float32Array)]).toEqual([1, 2]);
  });

  test("of a large tensor is read by its ends and the range that is wanted", async () => {
    const elements = 1 << 18;
    const tensor = patternTensor("t", "float32", [elements]);
    const bytes = await written(tensorValue("float32", [elements]), tensor.bytes);
    let reads = 0;
    const counted = {
      length: bytes.length,
      read: async (begin: number, end: number) => {
        reads += end - begin;
        return bytes.subarray(begin, end);
      },
    };
    const file = await openTorchFile(counted);
    const box = { offsets: [1000], sizes: [10] };
    const target: Uint8Array = new Uint8Array(40);
    await file.place(tensorIn(file), box, target, box);
    expect(target).toEqual(cutBox(tensor, box));
    expect(reads).toBeLessThan(10_000);
  });
});

describe("a file is refused", () => {
  test("when a byte of a tensor that is read whole was changed, in any axis order", async () => {
    const tensor = patternTensor("t", "float32", [8, 8]);
    for (const value of [
      tensorValue("float32", [8, 8]),
      rebuilt({ numel: 64, shape: [8, 8], strides: [1, 8] }),
    ]) {
      const bytes = await written(value, tensor.bytes);
      const at = Buffer.from(bytes).indexOf(Buffer.from(tensor.bytes));
      bytes[at + 77]! ^= 1;
      const file = await openTorchFile(memorySource(bytes));
      await expect(file.read(tensorIn(file))).rejects.toThrow(/does not match its checksum/);
      // As columns of something wider, too: the record is still read from end to end.
      const target = new Uint8Array(2 * tensor.bytes.length);
      const wide = { offsets: [0, 0], sizes: [8, 16] };
      await expect(file.place(tensorIn(file), wholeBox([8, 8]), target, wide)).rejects.toThrow(/checksum/);
    }
  });

  const tensors: readonly (readonly [string, PickleValue])[] = [
    ["that reaches behind its storage", rebuilt({ numel: 4, shape: [5], strides: [1] })],
    ["that begins behind it", rebuilt({ numel: 4, offset: 4, shape: [1], strides: [1] })],
    ["that strides out of it", rebuilt({ numel: 4, shape: [2, 2], strides: [3, 1] })],
    ["that repeats one element a billion times", rebuilt({ numel: 4, shape: [2 ** 30], strides: [0] })],
    ["whose size overflows", rebuilt({ numel: 4, shape: [2 ** 52, 2 ** 52], strides: [0, 0] })],
    [
      "of a storage of a petabyte that is not there",
      rebuilt({ numel: 2 ** 48, shape: [2 ** 48], strides: [1] }),
    ],
    ["with a negative stride", rebuilt({ numel: 4, shape: [2], strides: [-1] })],
    ["with a negative offset", rebuilt({ numel: 4, offset: -1, shape: [2], strides: [1] })],
    [
      "with a size that is a float",
      rebuilt({ numel: 4, shape: [{ kind: "float", value: 2 }], strides: [1] }),
    ],
    ["with more sizes than strides", rebuilt({ numel: 4, shape: [1, 1], strides: [1] })],
    ["of forty dimensions", rebuilt({ numel: 4, shape: Array(40).fill(1), strides: Array(40).fill(1) })],
    ["over a storage of another length", rebuilt({ numel: 5, shape: [5], strides: [1] })],
    [
      "of complex doubles",
      rebuilt({ storage: "torch ComplexDoubleStorage", numel: 1, shape: [1], strides: [1] }),
    ],
    [
      "over a storage that is a dtype of no storage",
      rebuilt({ storage: "torch.storage UntypedStorage", numel: 4, shape: [1], strides: [1] }),
    ],
  ];
  test.each(tensors)("with a tensor %s", async (_, value) => {
    const file = await openTorchFile(memorySource(await written(value, new Uint8Array(16))));
    await expect(
      (async () => {
        await file.read(tensorIn(file));
      })(),
    ).rejects.toBeInstanceOf(CheckpointError);
  });

  test("when its records are not what torch.save writes", async () => {
    const good = { "a/data.pkl": writePickle(1), "a/version": "3\n" };
    expect((await fileOf(good)).value).toBe(1);
    const bad: readonly Readonly<Record<string, Uint8Array | string>>[] = [
      {},
      { "data.pkl": writePickle(1), version: "3\n" },
      { "a/data.pkl": writePickle(1) },
      { "a/version": "3\n" },
      { ...good, "b/data/0": "x" },
      { ...good, "a/byteorder": "big" },
      { ...good, "a/data.pkl": "not a pickle" },
      { ...good, "a/data.pkl": writePickle(call("torch load", "x")) },
    ];
    for (const records of bad) await expect(fileOf(records)).rejects.toBeInstanceOf(CheckpointError);
  });
});

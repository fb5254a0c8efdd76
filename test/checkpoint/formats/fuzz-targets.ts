/** What the fuzz tests mutate, and how. `FSDP_FUZZ_SEED=n bun test ...` tries others. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { sha256Hex } from "../../../checkpoint/digest.ts";
import { memorySource } from "../../../checkpoint/formats/byte-source.ts";
import { decodeMetadata } from "../../../checkpoint/formats/dcp/metadata.ts";
import { metadataFaults } from "../../../checkpoint/formats/dcp/metadata-check.ts";
import { toJson } from "../../../checkpoint/formats/pickle/json.ts";
import { readPickle } from "../../../checkpoint/formats/pickle/reader.ts";
import { parseHeader, parseHeaderLength } from "../../../checkpoint/formats/safetensors/header.ts";
import { formatIndex, parseIndex } from "../../../checkpoint/formats/safetensors/index-file.ts";
import { openTorchFile } from "../../../checkpoint/formats/torch/reader.ts";
import { TENSOR_GLOBALS, tensorOf } from "../../../checkpoint/formats/torch/tensor-value.ts";
import { openZip } from "../../../checkpoint/formats/zip/reader.ts";
import { decodeManifest } from "../../../checkpoint/manifest.ts";
import { decodeMsgpack, encodeMsgpack } from "../../../checkpoint/msgpack.ts";
import { directoryStore } from "../../../checkpoint/stores/directory.ts";
import { fixture, inFolder } from "../../support/command.ts";
import { saveNative } from "../commands/run.ts";
import { patternTensor } from "../states.ts";
import { dcpFixture } from "./dcp/fixtures.ts";

/** Seed of the first mutation. */
export const SEED: number = Number(process.env.FSDP_FUZZ_SEED ?? 20260101);

/** A valid input and who reads it. */
interface Target {
  readonly name: string;
  readonly bytes: Uint8Array;
  read(bytes: Uint8Array): unknown;
}

/** A file's bytes. */
export const bytesAt = async (path: string): Promise<Uint8Array> => new Uint8Array(await readFile(path));

/** Valid inputs of every reader. */
export async function targets(): Promise<readonly Target[]> {
  const metadata = await bytesAt(join(dcpFixture("fsdp2-world2"), ".metadata"));
  const data = await bytesAt(join(dcpFixture("dtypes"), "__0_0.distcp"));
  const { tensors } = decodeMetadata(await bytesAt(join(dcpFixture("dtypes"), ".metadata")));
  const item = (name: string): Uint8Array => {
    const { begin, end } = tensors.find((tensor) => tensor.name === name)!.chunks[0]!;
    return data.slice(begin, end);
  };
  const pickle = async (name: string): Promise<Uint8Array> => {
    const zip = await openZip(memorySource(item(name)));
    return (await zip.read("archive/data.pkl", 1 << 20)).slice();
  };
  const weights = (await bytesAt(fixture("dcp/dtypes/expected.safetensors"))).slice();
  const manifest = await nativeManifest();
  const body = (decodeMsgpack(manifest) as { body: Uint8Array }).body;
  const readPickled = (bytes: Uint8Array): void => {
    const value = readPickle(bytes, TENSOR_GLOBALS);
    if (tensorOf(value) === undefined) toJson(value);
  };
  const readTorch = async (bytes: Uint8Array): Promise<void> => {
    const file = await openTorchFile(memorySource(bytes));
    const tensor = tensorOf(file.value);
    if (tensor !== undefined) await file.read(tensor);
  };
  return [
    {
      name: "safetensors",
      bytes: weights,
      read: (bytes) =>
        parseHeader(bytes.subarray(8, 8 + parseHeaderLength(bytes, bytes.length)), bytes.length),
    },
    {
      name: "safetensors index",
      bytes: new TextEncoder().encode(
        formatIndex(
          new Map([
            ["a.b", "x-00001-of-00002.safetensors"],
            ["c", "y.safetensors"],
          ]),
          { bytes: 8, elements: 2 },
        ),
      ),
      read: parseIndex,
    },
    {
      name: "DCP metadata",
      bytes: metadata,
      read: (bytes) => metadataFaults(decodeMetadata(bytes), new Map([["__0_0.distcp", 25616]])),
    },
    { name: "torch item", bytes: item("t.float32"), read: readTorch },
    { name: "torch item with strides", bytes: item("t.channels_last"), read: readTorch },
    { name: "pickle of a tensor", bytes: await pickle("t.uint32"), read: readPickled },
    { name: "pickle of a transposed tensor", bytes: await pickle("t.transposed"), read: readPickled },
    { name: "native manifest", bytes: manifest, read: decodeManifest },
    {
      // With its digest made to fit, so that what is behind it is reached.
      name: "native manifest's body",
      bytes: body,
      read: (bytes) =>
        decodeManifest(
          encodeMsgpack({ ...(decodeMsgpack(manifest) as object), sha256: sha256Hex(bytes), body: bytes }),
        ),
    },
  ];
}

async function nativeManifest(): Promise<Uint8Array> {
  return await inFolder(async (folder) => {
    const tensors = [patternTensor("model.w", "float32", [5, 3]), patternTensor("optim.step", "int64", [])];
    await saveNative(folder, tensors, { values: { list: [1, null, { a: "b" }] } });
    const store = directoryStore(folder);
    const length = await store.size("step-00000007", "manifest.msgpack");
    return (await store.read("step-00000007", "manifest.msgpack", 0, length)).slice();
  });
}

const EDGES = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
const NUMBERS = [0n, 1n, 0x7fffffffn, 0xffffffffn, 2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n];

/** One to four changes: bits, bytes, numbers, pieces cut out, doubled, moved or taken from elsewhere. */
export function mutate(input: Uint8Array, random: (below: number) => number): Uint8Array {
  let bytes = [...input];
  for (let left = 1 + random(4); left > 0; left--) {
    const at = random(bytes.length + 1);
    const length = random(Math.min(64, bytes.length - at) + 1);
    const kind = random(8);
    if (kind === 0 && at < bytes.length) bytes[at]! ^= 1 << random(8);
    else if (kind === 1 && at < bytes.length) bytes[at] = EDGES[random(EDGES.length)]!;
    else if (kind === 2) bytes.splice(at, length);
    else if (kind === 3) bytes.splice(at, 0, ...bytes.slice(at, at + length));
    else if (kind === 4) bytes = bytes.slice(0, at);
    else if (kind === 5) bytes.splice(at, length, ...bytes.slice(random(bytes.length + 1)).slice(0, length));
    else if (kind === 6) {
      const width = [4, 8][random(2)]!;
      const number = NUMBERS[random(NUMBERS.length)]!;
      for (let i = 0; i < width && at + i < bytes.length; i++)
        bytes[at + i] = Number((number >> BigInt(8 * i)) & 0xffn);
    } else bytes.splice(at, 0, ...Array.from({ length: 1 + random(8) }, () => random(256)));
  }
  return Uint8Array.from(bytes);
}

/**
 * `bun test/bench/checkpoint-plan.ts`: how long a rank takes from the bytes of a manifest of 100,000 chunks to a plan of what
 * it reads, as one large tensor, many small ones, and between. Milliseconds, best of five.
 *
 * @module
 */
import {
  decodeManifest,
  encodeManifest,
  type Manifest,
  type ManifestTensor,
} from "../../checkpoint/manifest.ts";
import { planLoad } from "../../checkpoint/plan.ts";
import { runtimeDescription } from "../../core/runtime/runtime.ts";
import { textTable } from "../../core/runtime/text-table.ts";

const CHUNKS = 100_000;
const SAVED_BY = 8;
const LOADED_BY = 3;

/** Tensors of rows in chunks of 64 bytes, dealt to the saving ranks' files in turn. */
function manifestOf(tensors: number): Manifest {
  const chunks = CHUNKS / tensors;
  const names = Array.from({ length: SAVED_BY }, (_, rank) => `rank-0000${rank}.safetensors`);
  const filled = names.map(() => 0);
  const made = Array.from({ length: tensors }, (_, t): ManifestTensor => {
    return {
      name: `optim.state.model.layers.${t}.self_attn.q_proj.weight.exp_avg`,
      dtype: "float32",
      shape: [4 * chunks, 4],
      chunks: Array.from({ length: chunks }, (_, c) => {
        const rank = (t + c) % SAVED_BY;
        const begin = filled[rank]!;
        filled[rank] = begin + 64;
        return { offsets: [4 * c, 0], sizes: [4, 4], file: names[rank]!, begin, end: begin + 64 };
      }),
    };
  });
  const files = names.map((name, rank) => ({
    name,
    length: filled[rank]!,
    sha256: "0".repeat(64),
    block: 2 ** 20,
    crc32: Array.from({ length: Math.ceil(filled[rank]! / 2 ** 20) }, () => 1),
  }));
  const rankValues = names.map(() => ({}));
  return { step: 1, worldSize: SAVED_BY, createdAt: 0, tensors: made, files, values: {}, rankValues };
}

const rows = [1, 1000, 12_500, 100_000].map((tensors) => {
  const manifest = manifestOf(tensors);
  const bytes = encodeManifest(manifest);
  const wanted = manifest.tensors.map((tensor) => {
    const share = Math.ceil(tensor.shape[0]! / LOADED_BY);
    return { ...tensor, pieces: [{ offsets: [0, 0], sizes: [share, 4] }] };
  });
  const times = Array.from({ length: 5 }, () => {
    const begin = performance.now();
    const decoded = decodeManifest(bytes);
    const middle = performance.now();
    planLoad(decoded.tensors, wanted);
    return [middle - begin, performance.now() - middle] as const;
  });
  const best = times.reduce((a, b) => (a[0] + a[1] < b[0] + b[1] ? a : b));
  return [String(tensors), (bytes.length / 1e6).toFixed(1), ...best.map((ms) => ms.toFixed(0))];
});
console.log(`${runtimeDescription()}, ${CHUNKS} chunks\n`);
const header = ["tensors", "manifest MB", "decode and check", "plan"];
for (const line of textTable(rows, { header, align: header.map(() => "right") })) console.log(line);

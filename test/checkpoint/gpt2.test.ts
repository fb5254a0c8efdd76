import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { safetensorsFormat } from "../../checkpoint/formats/safetensors/format.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import { bytesOf } from "../../core/contracts/dtype.ts";
import { runRanks } from "./ranks.ts";
import { dimZero, emptyState, type FullTensor, replicated, shardedState } from "./states.ts";

const fixtures = new URL("../fixtures/gpt2-tiny/", import.meta.url).pathname;

test("files of the reference writer are read bitwise", async () => {
  const path = join(fixtures, "model", "model.safetensors");
  const reader = await safetensorsFormat.open(path);
  expect(reader.names.length).toBe(28);
  expect(reader.info("transformer.h.0.attn.c_attn.weight")).toEqual({ dtype: "float32", shape: [64, 192] });
  const file = await readFile(path);
  const data = file.subarray(8 + Number(file.readBigUInt64LE(0)));
  const sha = createHash("sha256");
  // The reference writer orders one dtype by name.
  for (const name of reader.names.toSorted()) sha.update(bytesOf(await reader.read(name)));
  expect(sha.digest("hex")).toBe(createHash("sha256").update(data).digest("hex"));
  await reader.close();
  const tokens = await safetensorsFormat.open(join(fixtures, "tokens.safetensors"));
  expect(tokens.info("tokens")).toEqual({ dtype: "int64", shape: [20, 4, 33] });
  expect((await tokens.read("tokens", { offsets: [3, 1, 0], sizes: [1, 2, 33] })).length).toBe(66);
  await tokens.close();
});

test("a model sharded over 4 ranks and back to one gives the file that it came from", async () => {
  const reader = await safetensorsFormat.open(join(fixtures, "model", "model.safetensors"));
  const tensors: FullTensor[] = [];
  for (const name of reader.names)
    tensors.push({ name, ...reader.info(name), bytes: bytesOf(await reader.read(name)) });
  await reader.close();
  const checkpointer = nativeCheckpointer(memoryStore("memory:gpt2"));
  await runRanks(4, (collective) =>
    checkpointer.save(shardedState(tensors, dimZero(4), collective.rank), 1, collective),
  );
  const [filled] = await runRanks(1, async (collective) => {
    const target = emptyState(tensors, replicated, 0);
    await checkpointer.load(target.state, "latest", collective);
    return target.filled;
  });
  const folder = await mkdtemp(join(tmpdir(), "fsdp-gpt2-"));
  try {
    const path = join(folder, "merged.safetensors");
    const named = filled!.map(({ tensor, bytes }) => ({
      ...tensor,
      read: async () => new Float32Array(bytes.buffer as ArrayBuffer),
    }));
    await safetensorsFormat.write(path, named, { format: "pt" });
    const data = (file: Buffer): Buffer => file.subarray(8 + Number(file.readBigUInt64LE(0)));
    expect(data(await readFile(path))).toEqual(
      data(await readFile(join(fixtures, "model", "model.safetensors"))),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

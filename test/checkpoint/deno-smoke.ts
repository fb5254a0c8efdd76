/**
 * Run by Deno in `deno.test.ts`: a save over two ranks into a directory, a load at another layout, a check of every
 * byte, and a safetensors file. Prints one line of JSON.
 *
 * @module
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { safetensorsFormat } from "../../checkpoint/formats/safetensors/format.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { runRanks } from "./ranks.ts";
import { cutBox, dimZero, emptyState, patternTensor, shardedState } from "./states.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-smoke-"));
try {
  const tensors = [
    patternTensor("w", "float32", [700, 500]),
    patternTensor("h", "float16", [3]),
    patternTensor("s", "int64", []),
  ];
  const checkpointer = nativeCheckpointer(directoryStore(join(folder, "run")), { now: () => 0 });
  const save = (step: number) =>
    runRanks(2, (collective) =>
      checkpointer.save(shardedState(tensors, dimZero(2), collective.rank, { a: 1 }), step, collective),
    );
  const [info] = await save(1);
  const taken = await save(1).catch((error: Error) => error.message);
  const matches = await runRanks(3, async (collective) => {
    const { state, filled } = emptyState(tensors, dimZero(3), collective.rank);
    await checkpointer.load(state, "latest", collective);
    return filled.every(({ tensor, box, bytes }) =>
      cutBox(tensor, box).every((byte, i) => byte === bytes[i]),
    );
  });
  const background = await runRanks(2, async (collective) => {
    const state = shardedState(tensors, dimZero(2), collective.rank, { a: 1 });
    const pending = await checkpointer.saveAsync(state, 2, collective);
    return (await pending.wait()).name;
  });
  await checkpointer.close();
  const faults = [
    ...(await checkpointer.verify("step-00000001")),
    ...(await checkpointer.verify("step-00000002")),
  ];
  await checkpointer.delete("step-00000002");
  const file = join(folder, "run", "step-00000001", "rank-00000.safetensors");
  const reader = await safetensorsFormat.open(file);
  const names = reader.names;
  await reader.close();
  const copy = join(folder, "copy.safetensors");
  await safetensorsFormat.write(
    copy,
    [{ name: "x", dtype: "bool", shape: [2], read: async () => Uint8Array.of(1, 0) }],
    {},
  );
  const copied = await safetensorsFormat.open(copy);
  const x = Array.from(await copied.read("x"), Number);
  await copied.close();
  await checkpointer.delete("step-00000001");
  const left = await checkpointer.list();
  console.log(
    JSON.stringify({
      info,
      taken: typeof taken === "string" && taken.includes("taken"),
      matches,
      background,
      faults,
      names,
      x,
      left,
    }),
  );
} finally {
  await rm(folder, { recursive: true, force: true });
}

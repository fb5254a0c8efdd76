import { expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { runRanks } from "./ranks.ts";
import { patternTensor, replicated, shardedState } from "./states.ts";

test("a save whose process is killed changes nothing that is listed, and its step can be saved again", async () => {
  const root = await mkdtemp(join(tmpdir(), "fsdp-interrupted-"));
  try {
    const checkpointer = nativeCheckpointer(directoryStore(root));
    const save = (step: number) =>
      runRanks(1, (collective) =>
        checkpointer.save(
          shardedState([patternTensor("a", "float64", [9])], replicated, 0),
          step,
          collective,
        ),
      );
    await save(1);
    const script = fileURLToPath(new URL("./interrupted-save.ts", import.meta.url));
    const child = spawn(process.execPath, [script, root], { stdio: ["ignore", "pipe", "inherit"] });
    await once(child.stdout, "data");
    child.kill("SIGKILL");
    await once(child, "exit");
    const left = (await readdir(root)).filter((name) => name.startsWith(".tmp-step-00000002-"));
    expect(left.length).toBe(1);
    expect((await readdir(join(root, left[0]!))).sort()).toEqual([".owner", "rank-00000.safetensors"]);
    expect((await checkpointer.list()).map((info) => info.step)).toEqual([1]);
    expect(await checkpointer.verify("step-00000001")).toEqual([]);
    await save(2);
    expect((await checkpointer.list()).map((info) => info.step)).toEqual([1, 2]);
    expect(await checkpointer.verify("step-00000002")).toEqual([]);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}, 30_000);

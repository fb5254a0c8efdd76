/** What the checkpoint service's README shows with curl alone. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { safetensorsFormat } from "../../checkpoint/formats/safetensors/format.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { bytesOf } from "../../core/contracts/dtype.ts";
import { runRanks } from "../checkpoint/ranks.ts";
import { startService } from "../checkpoint/server/service.ts";
import { dimZero, patternTensor, shardedState } from "../checkpoint/states.ts";
import { inFolder } from "../support/command.ts";

const SCRIPT = fileURLToPath(new URL("curl-checkpoint.sh", import.meta.url));
const README = readFileSync(new URL("../../checkpoint/server/README.md", import.meta.url), "utf8");

test("curl puts shards into the service, one in two pieces, and gets a model that any reader of safetensors opens", async () => {
  const service = await startService();
  await inFolder(async (folder) => {
    // Some seconds at the rate of the piece that is cut off.
    const tensors = [
      patternTensor("model.w", "float32", [1500, 200]),
      patternTensor("optim.state.w.exp_avg", "float32", [300, 200]),
    ];
    const checkpointer = nativeCheckpointer(directoryStore(join(folder, "local")));
    await runRanks(2, (collective) =>
      checkpointer.save(shardedState(tensors, dimZero(2), collective.rank), 7, collective),
    );
    const out = join(folder, "model.safetensors");
    const args = [join(folder, "local", "step-00000007"), service.url, "one", out];
    const child = Bun.spawn(["sh", SCRIPT, ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringMatching(/^curl: \(28\) [^\n]*\n$/) });
    const arrived = Number(/^cut off, as it should be\n(\d+) bytes had arrived\n/.exec(stdout)?.[1]);
    const whole = Bun.file(join(service.directory, "one", "step-00000007", "rank-00001.safetensors")).size;
    expect(arrived).toBeGreaterThan(0);
    expect(arrived).toBeLessThan(whole);
    expect(stdout).toEndWith('{"checkpoints":[{"name":"step-00000007"}]}');
    const reader = await safetensorsFormat.open(out);
    expect(reader.names).toEqual(["w"]);
    expect(bytesOf(await reader.read("w"))).toEqual(tensors[0]!.bytes);
    await reader.close();
  });
  expect(service.errors).toEqual([]);
  await service.close();
}, 30_000);

test("the README shows the script", () => {
  const [, body] = /^set -eu\n([\s\S]+)$/m.exec(readFileSync(SCRIPT, "utf8")) ?? [];
  expect(README).toContain(body?.trimEnd() ?? "no script");
});

import { afterAll, expect, test } from "bun:test";
import { run as command } from "../../support/command.ts";
import { serviceLifecycle } from "./lifecycle.ts";
import { makeFolder, spawnService, startService } from "./service.ts";

const { folder, remove } = makeFolder();
afterAll(remove);

serviceLifecycle("in this process", () => startService());
serviceLifecycle("serve under Bun", () => spawnService("bun", `${folder}/bun`));
serviceLifecycle("serve under Deno", () => spawnService("deno", `${folder}/deno`));

test("serve refuses a port that is taken, and ends in order when it is told to", async () => {
  const first = await spawnService("bun", `${folder}/first`);
  const { port } = new URL(first.url);
  for (const runtime of ["bun", "deno"] as const) {
    const second = await command(["serve", "--dir", `${folder}/second`, "--port", port], runtime);
    expect([second.code, second.stderr]).toEqual([
      1,
      expect.stringContaining(`cannot listen on 127.0.0.1:${port}`),
    ]);
  }
  const deno = await spawnService("deno", `${folder}/third`);
  const left = [first, deno].map(async ({ child }) => {
    child!.kill("SIGINT");
    return [await child!.exited, await new Response(child!.stderr).text()];
  });
  expect(await Promise.all(left)).toEqual([
    [0, ""],
    [0, ""],
  ]);
}, 30_000);

import { expect, test } from "bun:test";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { RUNTIMES } from "../../../support/command.ts";
import { startService } from "../../server/service.ts";

test("Deno saves, loads, verifies and deletes over HTTP as Bun does", async () => {
  const service = await startService();
  const script = fileURLToPath(new URL("./deno-client.ts", import.meta.url));
  const results: unknown[] = [];
  for (const runtime of ["bun", "deno"] as const) {
    const [program, ...args] = RUNTIMES[runtime];
    const location = `${service.url}/runs/${runtime}`;
    const { stdout } = await promisify(execFile)(program!, [...args, script, location]);
    results.push(JSON.parse(stdout));
  }
  expect(results[0]).toEqual({
    taken: expect.stringContaining("there is a checkpoint step-00000001"),
    matches: [true, true, true],
    faults: [],
    left: ["step-00000002"],
  });
  expect(String((results[1] as { taken: string }).taken).replaceAll("run deno", "run bun")).toBe(
    (results[0] as { taken: string }).taken,
  );
  expect(results[1]).toMatchObject({ matches: [true, true, true], faults: [], left: ["step-00000002"] });
  expect(service.errors).toEqual([]);
  await service.close();
}, 60_000);

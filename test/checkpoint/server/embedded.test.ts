import { expect, test } from "bun:test";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { inFolder, RUNTIMES } from "../../support/command.ts";

const SCRIPT = fileURLToPath(new URL("embedded-program.ts", import.meta.url));
/** Where nobody listens. */
const NOWHERE = "http://127.0.0.1:9";

test.each(["bun", "deno"] as const)(
  "ranks under %s save to a service of their own process, whatever proxy the environment names",
  async (runtime) => {
    await inFolder(async (folder) => {
      const [program, ...args] = RUNTIMES[runtime];
      const env = { ...process.env, HTTP_PROXY: NOWHERE, http_proxy: NOWHERE, NO_PROXY: "", no_proxy: "" };
      const { stdout } = await promisify(execFile)(program!, [...args, SCRIPT, folder], {
        env,
        timeout: 60_000,
      });
      expect(JSON.parse(stdout)).toEqual([true, true]);
      // What is left is a folder like any other.
      expect(existsSync(join(folder, "one", "step-00000001", "manifest.msgpack"))).toBe(true);
    });
  },
  60_000,
);

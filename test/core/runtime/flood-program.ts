/**
 * A command line whose command `flood` prints more than any pipe holds, and `silent` nothing: a program for the tests
 * of closed pipes.
 *
 * @module
 */
import process from "node:process";
import { COMMAND } from "../../../core/contracts/plugin.ts";
import { runCommandLine } from "../../../core/runtime/command-line.ts";
import { createRegistry } from "../../../core/runtime/registry.ts";

const registry = createRegistry({ root: import.meta.url });
registry.register(COMMAND, "flood", {
  summary: "prints",
  options: {
    lines: { type: "integer", description: "how many", default: 100_000 },
    pause: { type: "boolean", description: "lets the event loop turn between lines", default: false },
  },
  run: async ({ options, print }) => {
    for (let i = 0; i < Number(options.lines); i++) {
      print(`line ${i} ${"x".repeat(50)}`);
      if (options.pause === true && i % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return 3;
  },
});
process.exit(await runCommandLine(registry, process.argv.slice(2)));

/**
 * `env`: what this machine has, what is registered, and what would be used. The first thing to look at, and to send
 * along, when something does not work.
 *
 * @module
 */
import { arch, cpus, freemem, platform, release, totalmem } from "node:os";
import type { CommandContext, CommandSpec, OptionValue } from "../contracts/command.ts";
import { BACKEND, COMMAND, type Plugin, type ProbeLine, type Registry } from "../contracts/plugin.ts";
import { formatBytes } from "./format.ts";
import { KIND } from "./registry.ts";
import { cpuCount, runtimeDescription } from "./runtime.ts";
import { textTable } from "./text-table.ts";
import { packageVersion } from "./version.ts";

/** Brings the command `env`. */
export const envPlugin: Plugin = Object.freeze<Plugin>({
  name: "env",
  setup: (registry) => registry.register(COMMAND, "env", envCommand),
});

const envCommand: CommandSpec = {
  summary: "shows runtimes, adapters and BLAS found, and what will be used",
  options: {},
  run: async (context) => {
    const report = await environment(context.registry);
    if (context.options.json === true) context.print(JSON.stringify(report, null, 2));
    else printEnvironment(context, report);
    return 0;
  },
};

/** All that `env --json` prints. */
interface Environment {
  readonly version: string;
  readonly runtime: string;
  readonly os: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly freeMemoryBytes: number;
  /** Findings by backend. */
  readonly backends: Readonly<Record<string, readonly ProbeLine[]>>;
  /** Registered names by kind. */
  readonly registered: Readonly<Record<string, readonly string[]>>;
  /** What `train` uses when its options do not say, by option. */
  readonly defaults: Readonly<Record<string, OptionValue>>;
}

/** Options of `train` that say what it runs on, and how. */
const PLACE_OPTIONS: ReadonlySet<string> = new Set(["backend", "collective", "world-size", "fsdp-version"]);

async function environment(registry: Registry): Promise<Environment> {
  const backends: Record<string, readonly ProbeLine[]> = {};
  for (const name of registry.names(BACKEND)) backends[name] = await probe(registry, name);
  return {
    version: await packageVersion(registry.root),
    runtime: runtimeDescription(),
    os: `${platform()} ${release()} ${arch()}`,
    processor: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpuCount(),
    memoryBytes: totalmem(),
    freeMemoryBytes: freemem(),
    backends,
    registered: Object.fromEntries(
      registry.names(KIND).map((kind) => [kind, registry.names({ name: kind })]),
    ),
    defaults: placeDefaults(registry),
  };
}

/** A probe must not throw; when a third party's does, the report says so instead of ending there. */
async function probe(registry: Registry, name: string): Promise<readonly ProbeLine[]> {
  try {
    return await registry.get(BACKEND, name).probe();
  } catch (error) {
    return [{ what: name, found: `probe failed: ${error instanceof Error ? error.message : String(error)}` }];
  }
}

function placeDefaults(registry: Registry): Readonly<Record<string, OptionValue>> {
  if (!registry.names(COMMAND).includes("train")) return {};
  const options = Object.entries(registry.get(COMMAND, "train").options);
  return Object.fromEntries(
    options.flatMap(([name, { default: value }]) => {
      const known = PLACE_OPTIONS.has(name.replaceAll("_", "-")) && value !== undefined;
      return known ? [[name, value] as const] : [];
    }),
  );
}

function printEnvironment(context: CommandContext, report: Environment): void {
  const memory = `${formatBytes(report.memoryBytes)}, ${formatBytes(report.freeMemoryBytes)} free`;
  const sections: readonly (readonly [string, readonly (readonly string[])[]])[] = [
    [
      "machine",
      [
        ["fsdp", report.version],
        ["runtime", report.runtime],
        ["system", report.os],
        ["processor", `${report.processor}, ${report.cores} cores`],
        ["memory", memory],
      ],
    ],
    ...Object.entries(report.backends).map(
      ([name, lines]) => [`backend ${name}`, lines.map(({ what, found }) => [what, found])] as const,
    ),
    ["registered", Object.entries(report.registered).map(([kind, names]) => [kind, names.join(", ")])],
    ["train uses by default", Object.entries(report.defaults).map(([name, value]) => [name, String(value)])],
  ];
  for (const [title, rows] of sections) {
    if (rows.length === 0) continue;
    context.print(title);
    for (const line of textTable(rows, { indent: 2 })) context.print(line);
  }
}

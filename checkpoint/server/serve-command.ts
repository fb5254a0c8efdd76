/**
 * `serve`: the checkpoint service from the command line.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { readFile, rename, writeFile } from "node:fs/promises";
import process from "node:process";
import type { CommandContext, CommandSpec } from "../../core/contracts/command.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { sha256Hex } from "../digest.ts";
import { isMissing } from "../stores/directory-errors.ts";
import { isLoopback } from "../stores/http/loopback.ts";
import { createCheckpointApp } from "./app.ts";
import { readTokenFile, SCOPES, type Scope, type TokenRecord } from "./auth.ts";
import { listen } from "./listen.ts";

/** What `serve` prints with `--json` once it listens. */
interface Listening {
  readonly url: string;
  readonly dir: string;
  readonly tokens: number;
}

/** The command `serve`. */
export const serveCommand: CommandSpec = {
  summary: "serves checkpoints over HTTP, for --save and --resume http://HOST:PORT/runs/NAME",
  options: {
    dir: { type: "string", default: "checkpoints", placeholder: "DIR", description: "where they lie" },
    port: { type: "integer", default: 8787, min: 0, max: 65535, description: "port; 0 takes a free one" },
    host: { type: "string", default: "127.0.0.1", description: "address; other than loopback needs tokens" },
    "token-file": { type: "string", placeholder: "FILE", description: "who may do what, by hashed tokens" },
    "new-token": {
      type: "string",
      placeholder: "NAME",
      description: "adds a token to --token-file and prints it, once; does not serve",
    },
    scopes: {
      type: "string",
      default: "read,write,commit",
      description: `of the new token: ${SCOPES.join(", ")}`,
    },
    run: {
      type: "string",
      default: "",
      description: "of the new token: the prefix of its runs; all by default",
    },
    log: { type: "boolean", default: false, description: "prints every request to standard error" },
  },
  async run(context: CommandContext): Promise<number> {
    const { "token-file": file, "new-token": name } = context.options;
    if (typeof name === "string") {
      if (typeof file !== "string") throw new ConfigError("cannot use --new-token: it needs --token-file");
      const { scopes, run } = context.options;
      context.print(await addToken(file, name, String(scopes), typeof run === "string" ? run : ""));
      return 0;
    }
    await serve(context, typeof file === "string" ? await readTokenFile(file) : []);
    return 0;
  },
};

async function serve(context: CommandContext, tokens: readonly TokenRecord[]): Promise<void> {
  const { dir, host, port, log, json } = context.options;
  const hostname = String(host);
  if (tokens.length === 0 && !isLoopback(hostname)) {
    throw new ConfigError(
      `cannot use --host: given "${hostname}" without --token-file, allowed without tokens are loopback addresses`,
    );
  }
  const app = createCheckpointApp({
    directory: String(dir),
    tokens,
    onError: (error) =>
      context.printError(error instanceof Error ? (error.stack ?? String(error)) : String(error)),
    ...(log === true
      ? {
          onRequest: ({ method, path, status, milliseconds, principal }) =>
            context.printError(`${method} ${path} ${status} ${milliseconds.toFixed(0)}ms ${principal}`),
        }
      : {}),
  });
  const stopped = new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => resolve());
  });
  const listener = await listen((request) => app.fetch(request), { hostname, port: Number(port) });
  const listening: Listening = { url: listener.url, dir: String(dir), tokens: tokens.length };
  context.print(
    json === true
      ? JSON.stringify(listening)
      : `serving ${listening.dir} at ${listening.url}, ${describeTokens(tokens.length)}; Ctrl-C ends it`,
  );
  await stopped;
  await listener.close();
}

function describeTokens(count: number): string {
  if (count === 0) return "to this host alone, without tokens";
  return count === 1 ? "1 token" : `${count} tokens`;
}

/** Adds a token to a file, which is made if need be. @returns the token. */
async function addToken(file: string, name: string, scopes: string, run: string): Promise<string> {
  const chosen = scopes.split(",").map((scope) => scope.trim());
  const unknown = chosen.find((scope) => !SCOPES.includes(scope as Scope));
  if (unknown !== undefined) {
    throw new ConfigError(`cannot use --scopes: given "${unknown}", allowed are ${SCOPES.join(", ")}`);
  }
  const there = await readFile(file).then(
    () => readTokenFile(file),
    (error: unknown) => {
      if (isMissing(error)) return [];
      throw new ConfigError(`cannot use --token-file: "${file}" cannot be read`, { cause: error });
    },
  );
  if (there.some((token) => token.name === name)) {
    throw new ConfigError(`cannot use --new-token: "${file}" has a token named "${name}" already`);
  }
  const token = `fsdp_${randomBytes(32).toString("base64url")}`;
  const record: TokenRecord = {
    name,
    sha256: sha256Hex(token),
    scopes: chosen as Scope[],
    ...(run === "" ? {} : { run }),
  };
  const part = `${file}.part`;
  await writeFile(part, `${JSON.stringify({ tokens: [...there, record] }, null, 2)}\n`, { mode: 0o600 });
  // What cannot be read back must not replace what can.
  await readTokenFile(part);
  await rename(part, file);
  return token;
}

/**
 * Who may do what. A service knows tokens by their SHA-256 only; each has scopes and the prefix of the runs it is for.
 *
 * @module
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import { ConfigError } from "../../core/contracts/errors.ts";
import { Problem } from "./problem.ts";

/** What a token allows. `admin` allows everything. */
export type Scope = "read" | "write" | "commit" | "delete" | "admin";

/** All scopes. */
export const SCOPES: readonly Scope[] = ["read", "write", "commit", "delete", "admin"];

/** A token as the service knows it. */
export interface TokenRecord {
  /** For people, and in the service's log. */
  readonly name: string;
  /** Of the token, in lower-case hexadecimal. */
  readonly sha256: string;
  readonly scopes: readonly Scope[];
  /** The token is for runs whose name begins so; every run when absent. */
  readonly run?: string | undefined;
  /** ISO date and time after which it is refused. */
  readonly expires?: string | undefined;
}

const tokenSchema: v.GenericSchema<unknown, TokenRecord> = v.strictObject({
  name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{1,64}$/)),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  scopes: v.pipe(v.array(v.picklist(SCOPES)), v.minLength(1)),
  run: v.optional(v.pipe(v.string(), v.regex(/^[a-z0-9._-]{0,128}$/))),
  expires: v.optional(v.pipe(v.string(), v.isoTimestamp())),
});

const tokenFileSchema = v.strictObject({ tokens: v.pipe(v.array(tokenSchema), v.minLength(1)) });

/** Who makes a request. */
export interface Principal {
  readonly name: string;
  allows(scopes: readonly Scope[]): boolean;
  /** Whether a run is the principal's business at all. */
  sees(run: string): boolean;
}

/** Everybody, where a service has no tokens. */
const LOCAL: Principal = Object.freeze({ name: "local", allows: () => true, sees: () => true });

/**
 * Reads a token file: `{"tokens":[{"name","sha256","scopes","run"?,"expires"?}]}`.
 *
 * @throws ConfigError when it cannot be read or is not of that form.
 */
export async function readTokenFile(path: string): Promise<readonly TokenRecord[]> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new ConfigError(`cannot use --token-file: "${path}" cannot be read`, { cause: error });
  });
  const result = v.safeParse(v.pipe(v.string(), v.parseJson(), tokenFileSchema), text, { abortEarly: true });
  if (result.success) return result.output.tokens;
  const issue = result.issues[0];
  // The place only: the value next to a mistake may be a token that somebody did not hash.
  throw new ConfigError(
    `cannot use --token-file: "${path}" at ${v.getDotPath(issue) ?? "its start"}, allowed is ` +
      `{"tokens":[{"name","sha256","scopes":[${SCOPES.join("|")}],"run"?,"expires"?}]}`,
  );
}

/** Finds out who makes requests, given a service's tokens. Without any, everybody may do everything. */
export function authenticator(
  tokens: readonly TokenRecord[],
  now: () => number,
): (request: Request) => Principal {
  if (tokens.length === 0) return () => LOCAL;
  const known = tokens.map((record) => ({
    digest: Buffer.from(record.sha256, "hex"),
    expires: record.expires === undefined ? Number.POSITIVE_INFINITY : Date.parse(record.expires),
    principal: principalOf(record),
  }));
  return (request) => {
    const given = /^Bearer ([\x21-\x7e]{1,512})$/i.exec(request.headers.get("authorization") ?? "")?.[1];
    if (given === undefined) throw unauthorized("the request has no bearer token", 'Bearer realm="fsdp"');
    const digest = createHash("sha256").update(given).digest();
    // All are compared, each in constant time.
    const found = known.filter((token) => timingSafeEqual(token.digest, digest))[0];
    if (found === undefined || found.expires <= now()) {
      throw unauthorized(
        "the bearer token is unknown or expired",
        'Bearer realm="fsdp", error="invalid_token"',
      );
    }
    return found.principal;
  };
}

function principalOf({ name, scopes, run = "" }: TokenRecord): Principal {
  const admin = scopes.includes("admin");
  return {
    name,
    allows: (wanted) => admin || wanted.some((scope) => scopes.includes(scope)),
    sees: (wanted) => wanted.startsWith(run),
  };
}

function unauthorized(detail: string, challenge: string): Problem {
  return new Problem("unauthorized", detail, { headers: { "www-authenticate": challenge } });
}

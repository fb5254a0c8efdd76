/**
 * Header fields as values: digests (RFC 9530), entity tags and preconditions (RFC 9110), structured booleans and integers.
 *
 * @module
 */
import { Problem } from "./problem.ts";

/** `Repr-Digest` or `Content-Digest` of a SHA-256 in hexadecimal. */
export function digestField(sha256: string): string {
  return `sha-256=:${Buffer.from(sha256, "hex").toString("base64")}:`;
}

/** The SHA-256 of a digest field, in hexadecimal; `undefined` when the request has no such field. @throws Problem. */
export function parseDigest(request: Request, field: "repr-digest" | "content-digest"): string | undefined {
  const text = request.headers.get(field);
  if (text === null) return undefined;
  const base64 = /(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:,|$)/.exec(text)?.[1];
  if (base64 === undefined) throw new Problem("malformed", `${field}: allowed is sha-256=:BASE64:`);
  return Buffer.from(base64, "base64").toString("hex");
}

/** A count in a header; `undefined` when absent. @throws Problem unless it is an integer from 0 to 2^53 - 1. */
export function parseCount(request: Request, field: string): number | undefined {
  const text = request.headers.get(field);
  if (text === null) return undefined;
  const value = Number(text);
  if (/^[0-9]{1,16}$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new Problem("malformed", `${field}: allowed is an integer from 0 to 2^53 - 1`);
}

/** A structured boolean; `undefined` when absent. @throws Problem unless it is `?0` or `?1`. */
export function parseBoolean(request: Request, field: string): boolean | undefined {
  const text = request.headers.get(field);
  if (text === null) return undefined;
  if (text === "?0" || text === "?1") return text === "?1";
  throw new Problem("malformed", `${field}: allowed are ?0 and ?1`);
}

/** The `Idempotency-Key` of a request. @throws Problem when it is not 1 to 128 visible characters. */
export function idempotencyKey(request: Request): string | undefined {
  const text = request.headers.get("idempotency-key");
  if (text === null) return undefined;
  if (/^[\x21-\x7e]{1,128}$/.test(text)) return text;
  throw new Problem("malformed", "idempotency-key: allowed are 1 to 128 visible ASCII characters");
}

/** Checks `If-Match` and `If-None-Match` of a request that changes something. `etag` is absent when nothing is there. */
export function checkWritable(request: Request, etag: string | undefined): void {
  const match = request.headers.get("if-match");
  if (match !== null && (etag === undefined || !lists(match, etag, false))) throw failed("if-match", etag);
  const none = request.headers.get("if-none-match");
  if (none !== null && etag !== undefined && lists(none, etag, true)) throw failed("if-none-match", etag);
}

/** Whether a client has what it asks for already (`If-None-Match`). @throws Problem when `If-Match` does not hold. */
export function isUnchanged(request: Request, etag: string): boolean {
  const match = request.headers.get("if-match");
  if (match !== null && !lists(match, etag, false)) throw failed("if-match", etag);
  const none = request.headers.get("if-none-match");
  return none !== null && lists(none, etag, true);
}

function failed(field: string, etag: string | undefined): Problem {
  return new Problem("precondition", `${field} does not hold`, {
    fields: { field },
    headers: etag === undefined ? {} : { etag },
  });
}

function lists(field: string, etag: string, weakly: boolean): boolean {
  return field.split(",").some((item) => {
    const tag = item.trim();
    return tag === "*" || tag === etag || (weakly && tag === `W/${etag}`);
  });
}

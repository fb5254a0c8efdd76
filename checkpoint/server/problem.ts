/**
 * Errors as the service answers them: RFC 9457 problem details, each of a known type with a status of its own.
 *
 * What a problem says reaches strangers: names that the client itself gave, numbers and limits; never a path of the
 * server, a token or the text of an unexpected error.
 *
 * @module
 */
import { CheckpointError } from "../../core/contracts/errors.ts";

/** Name of a problem type. */
export type ProblemType =
  | "malformed"
  | "content-digest"
  | "unauthorized"
  | "insufficient-scope"
  | "foreign-host"
  | "not-found"
  | "method-not-allowed"
  | "timeout"
  | "already-committed"
  | "already-exists"
  | "not-open"
  | "offset-mismatch"
  | "key-reused"
  | "pinned"
  | "expired"
  | "precondition"
  | "too-large"
  | "uri-too-long"
  | "media-type"
  | "range"
  | "invalid"
  | "digest-mismatch"
  | "length-mismatch"
  | "blob-unknown"
  | "unproven"
  | "unexportable"
  | "limit"
  | "headers-too-large"
  | "internal"
  | "busy"
  | "storage";

/** Types of problems: status and title. */
export const PROBLEMS: Readonly<Record<ProblemType, readonly [status: number, title: string]>> = {
  malformed: [400, "The request is malformed"],
  "content-digest": [400, "The bytes of this request do not match its Content-Digest"],
  unauthorized: [401, "A valid bearer token is needed"],
  "insufficient-scope": [403, "The token does not allow this"],
  "foreign-host": [403, "Without tokens only requests of this host are answered"],
  "not-found": [404, "There is no such resource"],
  "method-not-allowed": [405, "The resource does not have this method"],
  timeout: [408, "The request sent nothing for too long"],
  "already-committed": [409, "A checkpoint of this name exists already"],
  "already-exists": [409, "The file exists already"],
  "not-open": [409, "The save is no longer open"],
  "offset-mismatch": [409, "The offset is not where the upload stands"],
  "key-reused": [409, "The idempotency key was used for another request"],
  pinned: [409, "The checkpoint is pinned"],
  expired: [410, "The save has expired"],
  precondition: [412, "A precondition of the request does not hold"],
  "too-large": [413, "The request is larger than allowed"],
  "uri-too-long": [414, "The URL is longer than allowed"],
  "media-type": [415, "The content has another media type than allowed"],
  range: [416, "The range is not satisfiable"],
  invalid: [422, "The content does not fit its schema"],
  "digest-mismatch": [422, "The content does not match its digest"],
  "length-mismatch": [422, "The content does not have its length"],
  "blob-unknown": [422, "There are no such bytes"],
  unproven: [422, "The checkpoint is not proven whole"],
  unexportable: [422, "The checkpoint cannot be exported so"],
  limit: [429, "Too many requests or resources at once"],
  "headers-too-large": [431, "The headers are larger than allowed"],
  internal: [500, "The service failed"],
  busy: [503, "The service is at its capacity"],
  storage: [507, "There is not enough room"],
};

/** Faults that one problem lists at most. */
export const MOST_FAULTS = 1000;

/** What a problem carries beside its message. */
export interface ProblemOptions extends ErrorOptions {
  /** For machines: `expectedOffset`, `faults`, `limit` ... */
  readonly fields?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
}

/** An error with an answer. */
export class Problem extends CheckpointError {
  readonly type: ProblemType;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string>>;

  constructor(type: ProblemType, detail: string, options: ProblemOptions = {}) {
    super(detail, options);
    this.type = type;
    this.fields = options.fields ?? {};
    this.headers = options.headers ?? {};
  }
}

/** URI of a problem type. */
export function problemUri(type: ProblemType): string {
  return `urn:fsdp:problem:${type}`;
}

/** The response for a problem. */
export function problemResponse(problem: Problem): Response {
  const [status, title] = PROBLEMS[problem.type];
  const body = { ...problem.fields, type: problemUri(problem.type), title, status, detail: problem.message };
  return new Response(JSON.stringify(body), {
    status,
    headers: { ...problem.headers, "content-type": "application/problem+json", "cache-control": "no-store" },
  });
}

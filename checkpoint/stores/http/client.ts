/**
 * Requests to a checkpoint service, repeated when that can help: after 429 and 503, and when the connection was cut or
 * nothing came for too long. What is repeated is safe to repeat: reads, and writes that name what they write.
 *
 * The waits double up to a bound and are jittered, so that ranks which were refused together do not come back together.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { freeChunk } from "../../free-chunk.ts";

/** How requests are made. */
export interface ClientOptions {
  /** Bearer token, or none. */
  readonly token?: string | undefined;
  /** How long requests are repeated, from the first one, in milliseconds. Default: one minute. */
  readonly retryForMs?: number;
  /** How long one request may take, in milliseconds. Default: two minutes. */
  readonly timeoutMs?: number;
  /** Default: the runtime's own. The chunks of its bodies are the client's, which frees them. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** Numbers from 0 to 1 for jitter. Default: `Math.random`. */
  readonly random?: () => number;
}

/** One request. */
export interface ClientRequest {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "PATCH" | "DELETE";
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array<ArrayBuffer> | string;
  /** Statuses that are answers here; any other is an error. */
  readonly accept: readonly number[];
  /** Whether a cut connection is an error at once, for the caller to look where it stands. */
  readonly once?: boolean;
  /** The range that an accepted answer must hold, as bytes `[begin, end)`. */
  readonly range?: { readonly begin: number; readonly end: number };
  /** Where the body of an accepted answer goes, which must have its length. Else it is gathered in new memory. */
  readonly into?: Uint8Array;
  /** Whether the body of an accepted answer is the caller's to read. */
  readonly stream?: boolean;
}

/** Reads a body. */
export interface BodyReader {
  read(): Promise<{ readonly value?: Uint8Array | undefined; readonly done: boolean }>;
  cancel(): Promise<void>;
}

/** An answer whose body has come. */
export interface ClientResponse {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array<ArrayBuffer>;
  /** Of a request with `stream`. */
  readonly reader?: BodyReader | undefined;
  /** How many times the request was made. */
  readonly attempts: number;
}

/** Makes requests; `what` says in errors what failed. */
export type Client = (what: string, request: ClientRequest) => Promise<ClientResponse>;

/** The service refused. */
export class RefusedError extends CheckpointError {
  readonly status: number;
  readonly headers: Headers;

  constructor(message: string, status: number, headers: Headers) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

const NOTHING: Uint8Array<ArrayBuffer> = new Uint8Array(0);
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 5000;
/** Most bytes of an error's body that are read. */
const PROBLEM_BYTES = 64 * 1024;

/** 502 and 504 are what a proxy says of a service that is away. */
const WORTH_REPEATING: ReadonlySet<number> = new Set([429, 502, 503, 504]);

const problemSchema = v.object({ title: v.string(), detail: v.optional(v.string()) });

/** A client. */
export function createClient(options: ClientOptions): Client {
  const { token, retryForMs = 60_000, timeoutMs = 120_000, random = Math.random } = options;
  const fetcher = options.fetch ?? ((url: string, init: RequestInit) => fetch(url, init));
  const authorization: Record<string, string> =
    token === undefined ? {} : { authorization: `Bearer ${token}` };

  const attempt = async (what: string, request: ClientRequest): Promise<Omit<ClientResponse, "attempts">> => {
    const response = await fetcher(request.url, {
      method: request.method,
      headers: { ...request.headers, ...authorization },
      body: request.body ?? null,
      // A token never follows to where somebody else says.
      redirect: "manual",
      signal: AbortSignal.timeout(timeoutMs),
    });
    const { status, headers } = response;
    if (!request.accept.includes(status)) {
      return { status, headers, body: await readAtMost(response, PROBLEM_BYTES) };
    }
    const { range } = request;
    if (range !== undefined && !holds(headers, range)) {
      await response.body?.cancel();
      throw new RefusedError(`${what}: there are no bytes ${range.begin} to ${range.end}`, status, headers);
    }
    if (request.stream === true) {
      return { status, headers, body: NOTHING, reader: response.body?.getReader() };
    }
    if (request.into !== undefined) {
      await fill(request.into, response);
      return { status, headers, body: NOTHING };
    }
    const body = new Uint8Array(await response.arrayBuffer());
    // A stream that breaks off may look complete.
    const due = range === undefined ? headers.get("content-size") : range.end - range.begin;
    if (due !== null && request.method !== "HEAD" && body.length !== Number(due)) {
      throw new CheckpointError(`${body.length} bytes came, due are ${due}`);
    }
    return { status, headers, body };
  };

  return async (what, request) => {
    const deadline = performance.now() + retryForMs;
    let wait = FIRST_WAIT_MS;
    for (let attempts = 1; ; attempts++) {
      let pause = wait * (0.5 + random());
      let failure: CheckpointError;
      try {
        const answer = await attempt(what, request);
        if (request.accept.includes(answer.status)) return { ...answer, attempts };
        failure = new RefusedError(`${what}: ${describeProblem(answer)}`, answer.status, answer.headers);
        if (!WORTH_REPEATING.has(answer.status)) throw failure;
        const asked = Number(answer.headers.get("retry-after") ?? 0) * 1000;
        if (asked > 0) pause = Math.max(pause, Math.min(asked, LONGEST_WAIT_MS * 2));
      } catch (error) {
        if (error instanceof RefusedError) throw error;
        failure = new CheckpointError(`${what}: ${reasonOf(error)}`, { cause: error });
        if (request.once === true) throw failure;
      }
      if (performance.now() + pause > deadline) throw failure;
      await sleep(pause);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  };
}

/** Reads a body to where it belongs, as it comes. @throws CheckpointError unless it has that length. */
async function fill(target: Uint8Array, response: Response): Promise<void> {
  const reader = response.body?.getReader();
  let at = 0;
  try {
    while (reader !== undefined) {
      const { value, done } = await reader.read();
      if (done) break;
      const end = at + value.length;
      if (end <= target.length) target.set(value, at);
      freeChunk(value);
      at = end;
      if (at > target.length) break;
    }
  } finally {
    await reader?.cancel().catch(() => undefined);
  }
  if (at !== target.length) throw new CheckpointError(`${at} bytes came, due are ${target.length}`);
}

function holds(headers: Headers, { begin, end }: { readonly begin: number; readonly end: number }): boolean {
  return headers.get("content-range")?.startsWith(`bytes ${begin}-${end - 1}/`) === true;
}

function describeProblem({ status, body }: Pick<ClientResponse, "status" | "body">): string {
  const text = new TextDecoder().decode(body);
  const result = v.safeParse(v.pipe(v.string(), v.parseJson(), problemSchema), text);
  if (!result.success) return `the service answered with status ${status}`;
  const { title, detail } = result.output;
  return `${(detail ?? title).slice(0, 1000)} (status ${status})`;
}

function reasonOf(error: unknown): string {
  if (error instanceof CheckpointError) return error.message;
  if (error instanceof Error && error.name === "TimeoutError") return "the service did not answer in time";
  // The runtimes' own texts differ, and name the URL.
  return "the service cannot be reached, or the connection was cut";
}

async function readAtMost(response: Response, most: number): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let total = 0;
  const reader = response.body?.getReader();
  while (reader !== undefined && total < most) {
    const { value, done } = await reader.read();
    if (done) break;
    parts.push(value);
    total += value.length;
  }
  await reader?.cancel().catch(() => undefined);
  return new Uint8Array(Buffer.concat(parts).subarray(0, most));
}

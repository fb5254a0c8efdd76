/**
 * A route as data: what it is, who may use it and what it takes. Dispatch, checks and the OpenAPI document all come from
 * this, so that none of them can differ from the others.
 *
 * @module
 */
import * as v from "valibot";
import { isStoreName } from "../../stores/names.ts";
import type { Principal, Scope } from "../auth.ts";
import { isUnchanged } from "../http-fields.ts";
import type { Service } from "../service.ts";
import type { AnswerHeader, RequestHeader } from "./headers.ts";

/** Names of the variable segments of a path. */
type ParamNames<P extends string> = P extends `${string}{${infer N}}${infer Rest}`
  ? N | ParamNames<Rest>
  : never;

/** Name of a variable segment. */
export type ParamName =
  | "run"
  | "checkpoint"
  | "file"
  | "save"
  | "upload"
  | "job"
  | "sha256"
  | "rank"
  | "tensor";

/** Schemas of all variable segments, by name. */
export const PARAMS: Readonly<Record<ParamName, v.GenericSchema<string, string>>> = {
  run: v.pipe(v.string(), v.check(isStoreName, "lower-case letters, digits and . _ -, without ..")),
  checkpoint: v.pipe(v.string(), v.check(isStoreName, "lower-case letters, digits and . _ -, without ..")),
  file: v.pipe(v.string(), v.check(isStoreName, "lower-case letters, digits and . _ -, without ..")),
  save: v.pipe(v.string(), v.uuid()),
  upload: v.pipe(v.string(), v.uuid()),
  job: v.pipe(v.string(), v.uuid()),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  rank: v.pipe(v.string(), v.regex(/^(0|[1-9][0-9]{0,5})$/)),
  tensor: v.pipe(v.string(), v.minLength(1), v.maxLength(4096)),
};

/** Schema of a query: an object of what the URL's texts mean. */
export type QuerySchema = v.GenericSchema;

/** What a handler is given, checked. */
export interface RouteInput<P extends string, Q, B> {
  readonly service: Service;
  readonly request: Request;
  readonly principal: Principal;
  readonly params: Readonly<Record<P, string>>;
  readonly query: Q;
  readonly body: B;
  /** Path under which the service is mounted, for `Location`; empty at the root. */
  readonly mount: string;
}

/** One possible answer, for the OpenAPI document. */
export interface Answer {
  readonly description: string;
  readonly schema?: v.GenericSchema;
  /** Media type, or several, of content that has no schema. */
  readonly type?: string | readonly string[];
  readonly headers?: readonly AnswerHeader[];
}

/** A route without its types. */
export interface Route {
  readonly method: "GET" | "PUT" | "POST" | "PATCH" | "DELETE" | "OPTIONS";
  /** With variable segments in braces: `/v1/runs/{run}/saves`. */
  readonly path: `/${string}`;
  readonly operation: string;
  readonly tag: string;
  readonly summary: string;
  /** Any of these suffices; none are needed when it is empty. */
  readonly scopes: readonly Scope[];
  /** Suffice for `HEAD` too. */
  readonly headScopes?: readonly Scope[];
  readonly query: QuerySchema;
  /** Fields that the handler reads. */
  readonly headers?: readonly RequestHeader[];
  /** Those of them without which a request is refused. */
  readonly neededHeaders?: readonly RequestHeader[];
  /** Of a JSON body. */
  readonly body?: v.GenericSchema;
  /** Whether the JSON body may be absent, which reads as `{}`. */
  readonly bodyOptional?: boolean;
  /** Media types of a body that the handler reads itself. */
  readonly content?: readonly string[];
  readonly answers: Readonly<Record<number, Answer>>;
  handle(input: RouteInput<ParamName, unknown, unknown>): Promise<Response>;
}

interface RouteSpec<P extends `/${string}`, Q extends QuerySchema, B extends v.GenericSchema>
  extends Omit<Route, "path" | "query" | "body" | "handle"> {
  readonly path: P;
  readonly query: Q;
  readonly body?: B;
  handle(input: RouteInput<ParamNames<P> & ParamName, v.InferOutput<Q>, v.InferOutput<B>>): Promise<Response>;
}

/** Declares a route; the handler's input has the types that the path and the schemas say. */
export function route<
  const P extends `/${string}`,
  const Q extends QuerySchema,
  const B extends v.GenericSchema = v.GenericSchema<unknown, undefined>,
>(spec: RouteSpec<P, Q, B>): Route {
  return spec as unknown as Route;
}

/** A JSON answer. */
export function json(value: unknown, status = 200, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(JSON.stringify(value), {
    status,
    headers: { "cache-control": "no-store", ...headers, "content-type": "application/json" },
  });
}

/** A JSON answer with an entity tag, or 304 to who has it already. @throws Problem when `If-Match` does not hold. */
export function taggedJson(
  request: Request,
  value: unknown,
  etag: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  const tagged = { ...headers, etag, "cache-control": "private, no-cache" };
  return isUnchanged(request, etag) ? empty(304, tagged) : json(value, 200, tagged);
}

/** An answer without content. */
export function empty(status = 204, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(null, { status, headers: { "cache-control": "no-store", ...headers } });
}

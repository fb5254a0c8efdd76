/**
 * Plain HTTP requests to a service under test, as any client could make them.
 *
 * @module
 */

import { expect } from "bun:test";
import { createHash } from "node:crypto";

/** An answer whose body has come. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The body as JSON; `undefined` when it is none. */
  readonly json: Record<string, unknown>;
}

/** What a request has beside method and path. */
export interface Ask {
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly json?: unknown;
  readonly body?: Uint8Array<ArrayBuffer> | string;
}

/** Makes requests to one service. */
export type Api = (method: string, path: string, ask?: Ask) => Promise<Answer>;

/** Requests to `base`, with a token where one is given. */
export function apiOf(base: string, token?: string): Api {
  return async (method, path, ask = {}) => {
    const url = /^https?:/.test(path) ? path : `${base}${path}`;
    const response = await fetch(url, {
      method,
      redirect: "manual",
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(ask.json === undefined ? {} : { "content-type": "application/json" }),
        ...ask.headers,
      },
      body: ask.json === undefined ? (ask.body ?? null) : JSON.stringify(ask.json),
    });
    const bytes = new Uint8Array(await response.arrayBuffer());
    return { status: response.status, headers: response.headers, bytes, json: parse(bytes) };
  };
}

/** Checks that an answer is a problem of this type, told as RFC 9457 says. */
export function expectProblem(answer: Answer, status: number, type: string): void {
  expect({ status: answer.status, type: answer.json.type }).toEqual({
    status,
    type: `urn:fsdp:problem:${type}`,
  });
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(answer.json.status).toBe(status);
  expect(typeof answer.json.title).toBe("string");
  expect(typeof answer.json.detail).toBe("string");
}

/** Begins a save and returns its path. */
export async function beginSave(api: Api, run: string, body: Record<string, unknown>): Promise<string> {
  const answer = await api("POST", `/v1/runs/${run}/saves`, { json: body });
  expect(answer.status).toBe(201);
  return answer.headers.get("location")!;
}

/** Begins an upload and returns its path. */
export async function beginUpload(
  api: Api,
  save: string,
  file: string | undefined,
  headers: Readonly<Record<string, string>> = {},
): Promise<string> {
  const query = file === undefined ? "" : `?file=${file}`;
  const answer = await api("POST", `${save}/uploads${query}`, { headers });
  expect(answer.status).toBe(201);
  return answer.headers.get("location")!;
}

/** Appends to an upload. */
export function append(
  api: Api,
  upload: string,
  offset: number,
  body: Uint8Array<ArrayBuffer>,
  last: boolean,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  return api("PATCH", upload, {
    body,
    headers: {
      "content-type": "application/partial-upload",
      "upload-offset": String(offset),
      "upload-complete": last ? "?1" : "?0",
      ...headers,
    },
  });
}

/** Uploads a whole file into a save. */
export async function putFile(
  api: Api,
  save: string,
  file: string,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<void> {
  const answer = await append(api, await beginUpload(api, save, file), 0, bytes, true);
  expect(answer.status).toBe(201);
}

/** SHA-256 in hexadecimal. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A digest field of some bytes. */
export function digestOf(bytes: Uint8Array): string {
  return `sha-256=:${createHash("sha256").update(bytes).digest("base64")}:`;
}

/** Bytes that do not repeat soon. */
export function someBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let word = seed;
  for (let i = 0; i < length; i++) {
    word = (Math.imul(word, 1664525) + 1013904223) | 0;
    bytes[i] = word >>> 24;
  }
  return bytes;
}

function parse(bytes: Uint8Array): Record<string, unknown> {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/**
 * A checkpoint store behind a checkpoint service (`serve`, `createCheckpointApp`). Every rank uploads just its own files
 * and reads just the ranges that it needs.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import process from "node:process";
import * as v from "valibot";
import type { CheckpointStore, StoreReader, StoreTransaction } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../../../core/contracts/errors.ts";
import { checkRange, checkStoreName } from "../names.ts";
import {
  type BodyReader,
  type ClientOptions,
  type ClientRequest,
  createClient,
  RefusedError,
} from "./client.ts";
import { type Extent, readExtent } from "./extents.ts";
import { parseHttpLocation } from "./location.ts";
import { exemptLoopback } from "./loopback.ts";
import { httpTransaction } from "./transaction.ts";
import { locationOf } from "./upload-writer.ts";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const PART_BYTES = 4 * 1024 * 1024;
/** Bytes of one ranged read. */
const READ_BYTES = 64 * 1024 * 1024;

const text = v.pipe(v.string(), v.parseJson());
const pageSchema = v.pipe(text, v.object({ checkpoints: v.array(v.object({ name: v.string() })) }));
const filesSchema = v.pipe(text, v.object({ files: v.array(v.object({ file: v.string() })) }));
const saveSchema = v.pipe(text, v.object({ id: v.string(), checkpoint: v.string(), state: v.string() }));

/**
 * The store of an `http:` or `https:` location; `undefined` for others. A token comes from the environment: `FSDP_TOKEN`,
 * or the first line of the file `FSDP_TOKEN_FILE`.
 *
 * @throws ConfigError when the location names no run, or the token file cannot be read.
 */
export function openHttpStore(location: string): CheckpointStore | undefined {
  if (parseHttpLocation(location) === undefined) return undefined;
  return httpStore(location, { token: environmentToken() });
}

/** Options of a store behind a service. */
export interface HttpStoreOptions extends ClientOptions {
  /** Bytes of one append to an upload, of which a few are on their way at once. Default: 4 MiB. */
  readonly partBytes?: number;
}

/** A store behind a service. @throws ConfigError when the location names no run. */
export function httpStore(given: string, options: HttpStoreOptions = {}): CheckpointStore {
  const parsed = parseHttpLocation(given);
  if (parsed === undefined) throw new ConfigError(`cannot use "${given}": it is no http(s) location`);
  const { location, checkpoint } = parsed;
  exemptLoopback(location);
  const client = createClient(options);
  const { partBytes = PART_BYTES } = options;
  const runOf = (): string => {
    if (parsed.run === undefined)
      throw new CheckpointError(`no run in ${location}: allowed is ${location}/NAME`);
    return parsed.run;
  };
  const sees = (name: string): boolean => checkpoint === undefined || name === checkpoint;
  const committed = (name: string): string => {
    checkStoreName("checkpoint", name);
    if (!sees(name)) throw new CheckpointError(`checkpoint ${name}: not in ${location}`);
    return `${runOf()}/checkpoints/${name}`;
  };
  const fileUrl = (name: string, file: string): string => {
    checkStoreName("file", file);
    return `${committed(name)}/files/${file}`;
  };
  const size = async (name: string, file: string): Promise<number> => {
    const what = `checkpoint ${name}: file ${file}`;
    const url = fileUrl(name, file);
    const { headers } = await client(what, { method: "HEAD", url, accept: [200] });
    const length = Number(headers.get("content-size") ?? headers.get("content-length") ?? Number.NaN);
    if (!Number.isSafeInteger(length)) throw new CheckpointError(`${what}: the service told no length`);
    return length;
  };
  const rangeOf = (name: string, file: string, begin: number, end: number): ClientRequest => ({
    method: "GET",
    url: fileUrl(name, file),
    headers: { range: `bytes=${begin}-${end - 1}`, "accept-encoding": "identity" },
    accept: [206],
    range: { begin, end },
  });
  const readInto = async (name: string, file: string, target: Uint8Array, first: number): Promise<void> => {
    const what = `checkpoint ${name}: file ${file}`;
    for (let at = 0; at < target.length; at += READ_BYTES) {
      const into = target.subarray(at, at + READ_BYTES);
      const begin = first + at;
      await client(what, { ...rangeOf(name, file, begin, begin + into.length), into });
    }
  };

  return Object.freeze<CheckpointStore>({
    location,

    async begin(name: string): Promise<StoreTransaction> {
      checkStoreName("checkpoint", name);
      if (!sees(name)) throw new CheckpointError(`save of ${name}: ${location} is another checkpoint`);
      const what = `save of ${name}`;
      const run = runOf();
      const { body, headers } = await client(what, {
        method: "POST",
        url: `${run}/saves`,
        headers: { "content-type": "application/json", "idempotency-key": randomUUID() },
        body: JSON.stringify({ name }),
        accept: [201],
      });
      locationOf(headers, run, what);
      const { id } = parse(saveSchema, body, what);
      if (!UUID.test(id)) throw new CheckpointError(`${what}: the service gave no valid id`);
      return httpTransaction({ client, run, name, id, partBytes });
    },

    async join(name: string, id: string): Promise<StoreTransaction> {
      checkStoreName("checkpoint", name);
      const what = `save of ${name}`;
      const run = runOf();
      if (!UUID.test(id)) throw new CheckpointError(`${what}: no transaction ${id}`);
      const { body } = await client(what, { method: "GET", url: `${run}/saves/${id}`, accept: [200] });
      const save = parse(saveSchema, body, what);
      if (save.checkpoint !== name || save.state !== "open") {
        throw new CheckpointError(`${what}: no open transaction ${id}`);
      }
      return httpTransaction({ client, run, name, id, partBytes });
    },

    async list(): Promise<readonly string[]> {
      const names: string[] = [];
      if (parsed.run === undefined) return names;
      for (;;) {
        const after = names.length === 0 ? "" : `&after=${names.at(-1)}`;
        const url = `${parsed.run}/checkpoints?names=only&limit=1000${after}`;
        const what = `list of ${location}`;
        const { body } = await client(what, { method: "GET", url, accept: [200] });
        const page = parse(pageSchema, body, what).checkpoints.map(({ name }) => name);
        for (const name of page) checkStoreName("checkpoint", name);
        // A page that does not go on would be asked for without end.
        if (page.length === 0 || page[0]! <= (names.at(-1) ?? "")) break;
        names.push(...page);
      }
      return names.filter(sees);
    },

    size,

    async files(name: string): Promise<readonly string[]> {
      const what = `checkpoint ${name}`;
      const { body } = await client(what, { method: "GET", url: `${committed(name)}/files`, accept: [200] });
      return parse(filesSchema, body, what).files.map(({ file }) => file);
    },

    async read(name: string, file: string, begin: number, end: number): Promise<Uint8Array> {
      const ordered = Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin < end;
      if (!ordered) checkRange(file, begin, end, await size(name, file));
      const bytes = new Uint8Array(Math.max(0, end - begin));
      await readInto(name, file, bytes, begin);
      return bytes;
    },

    async open(name: string, file: string): Promise<StoreReader> {
      const length = await size(name, file);
      const what = `checkpoint ${name}: file ${file}`;
      const request = async (begin: number, end: number): Promise<BodyReader | undefined> => {
        const { reader } = await client(what, { ...rangeOf(name, file, begin, end), stream: true });
        return reader;
      };
      let extents: Extent[] = [];
      return {
        expect(begin: number, end: number): void {
          checkRange(file, begin, end, length);
          extents = [...extents.filter(({ over }) => !over), readExtent(begin, end, request)];
        },
        async readInto(target: Uint8Array, begin: number): Promise<void> {
          const end = begin + target.length;
          checkRange(file, begin, end, length);
          const extent = extents.find((one) => one.continues(begin, end));
          try {
            if (extent !== undefined) return await extent.take(target);
          } catch (error) {
            if (error instanceof RefusedError) throw error;
            // What is cut off is asked for again, with patience.
          }
          await readInto(name, file, target, begin);
        },
        async close(): Promise<void> {
          for (const extent of extents) await extent.close();
          extents = [];
        },
      };
    },

    async delete(name: string): Promise<void> {
      const what = `delete of ${name}`;
      const url = committed(name);
      const { status, attempts } = await client(what, { method: "DELETE", url, accept: [204, 404] });
      if (status === 404 && attempts === 1) throw new CheckpointError(`${what}: not in ${location}`);
    },
  });
}

function parse<const S extends v.GenericSchema>(schema: S, body: Uint8Array, what: string): v.InferOutput<S> {
  const result = v.safeParse(schema, new TextDecoder().decode(body));
  if (result.success) return result.output;
  throw new CheckpointError(`${what}: the answer is not one of a checkpoint service`);
}

function environmentToken(): string | undefined {
  const { FSDP_TOKEN: token, FSDP_TOKEN_FILE: file } = process.env;
  if (token !== undefined && token !== "") return checkToken(token, "FSDP_TOKEN");
  if (file === undefined || file === "") return undefined;
  let content: string;
  try {
    content = readFileSync(file, "utf8");
  } catch (error) {
    throw new ConfigError("cannot use FSDP_TOKEN_FILE: the file cannot be read", { cause: error });
  }
  return checkToken(content.split("\n")[0]!.trim(), "FSDP_TOKEN_FILE");
}

function checkToken(token: string, from: string): string {
  if (/^[\x21-\x7e]{1,512}$/.test(token)) return token;
  throw new ConfigError(`cannot use ${from}: allowed are 1 to 512 visible ASCII characters`);
}

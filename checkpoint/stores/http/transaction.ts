/**
 * A save in progress at a checkpoint service, as one rank sees it.
 *
 * @module
 */
import type { StoreTransaction, StoreWriter } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { checkStoreName } from "../names.ts";
import type { Client } from "./client.ts";
import { uploadWriter } from "./upload-writer.ts";

/** Which save. */
export interface SavePlace {
  readonly client: Client;
  /** Resource of the run. */
  readonly run: string;
  readonly name: string;
  readonly id: string;
  /** Bytes of one append to an upload. */
  readonly partBytes: number;
}

/** The transaction of a save that was begun. */
export function httpTransaction({ client, run, name, id, partBytes }: SavePlace): StoreTransaction {
  const save = `${run}/saves/${id}`;
  let ended = false;
  /** What this rank took out: the service, which a bad network may ask twice, does not mind. */
  const removed = new Set<string>();
  const resource = (file: string): string => {
    checkStoreName("file", file);
    if (ended) throw new CheckpointError(`save of ${name}: its transaction has ended`);
    return `${save}/files/${file}`;
  };
  return {
    id,
    linkVerifies: true,
    digests: true,
    async create(file: string, bytes?: number): Promise<StoreWriter> {
      resource(file);
      removed.delete(file);
      return await uploadWriter({ client, save, name, file, bytes, partBytes });
    },
    async read(file: string): Promise<Uint8Array> {
      const url = resource(file);
      const { body } = await client(`save of ${name}: read of ${file}`, {
        method: "GET",
        url,
        accept: [200],
      });
      return body;
    },
    async remove(file: string): Promise<void> {
      const what = `save of ${name}: removal of ${file}`;
      const { status, attempts } = await client(what, {
        method: "DELETE",
        url: resource(file),
        accept: [204, 404],
      });
      // Gone at a repeated attempt: an earlier one did it, and its answer was lost.
      const missing = removed.has(file) || (status === 404 && attempts === 1);
      if (missing) throw new CheckpointError(`${what}: no such file`);
      removed.add(file);
    },
    async link(file: string, from: { readonly name: string; readonly file: string }): Promise<void> {
      resource(file);
      removed.delete(file);
      checkStoreName("checkpoint", from.name);
      checkStoreName("file", from.file);
      const what = `save of ${name}: link to ${from.file} of ${from.name}`;
      await client(what, {
        method: "POST",
        url: `${save}/files`,
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ file, from: { checkpoint: from.name, file: from.file } }),
        accept: [201],
      });
    },
    async commit(): Promise<void> {
      if (ended) throw new CheckpointError(`save of ${name}: its transaction has ended`);
      await client(`save of ${name}`, { method: "POST", url: `${save}/commit`, accept: [200] });
      ended = true;
    },
    async abort(): Promise<void> {
      if (ended) return;
      ended = true;
      await client(`abort of the save of ${name}`, {
        method: "POST",
        url: `${save}/abort`,
        accept: [204, 404, 409, 410],
      });
    },
  };
}

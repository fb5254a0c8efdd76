/**
 * What requests and answers of the service look like, for checks and for the OpenAPI document.
 *
 * @module
 */
import * as v from "valibot";
import { isStoreName } from "../../stores/names.ts";
import { labelsSchema } from "../notes.ts";

type Schema<T> = v.GenericSchema<unknown, T>;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const storeName = v.pipe(
  v.string(),
  v.check(isStoreName, "lower-case letters, digits and . _ -, without .."),
);

/** A number in a query. */
const queryCount = v.pipe(
  v.string(),
  v.regex(/^[0-9]{1,16}$/),
  v.transform(Number),
  v.number(),
  v.safeInteger(),
);

/** Integers separated by commas in a query: `0,128`; empty for a scalar. */
export const extents: Schema<readonly number[]> = v.pipe(
  v.string(),
  v.regex(/^([0-9]{1,16}(,[0-9]{1,16}){0,31})?$/),
  v.transform((text): number[] => (text === "" ? [] : text.split(",").map(Number))),
  v.array(v.pipe(v.number(), v.safeInteger())),
);

/** Body of `beginSave`. */
export interface BeginBody {
  readonly name?: string | undefined;
  readonly step?: number | undefined;
  readonly worldSize?: number | undefined;
  readonly commit?: "explicit" | "auto" | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** Seconds. */
  readonly expiresIn?: number | undefined;
  readonly bytes?: number | undefined;
}

/** Body of `beginSave`: a name, or a step that gives one. */
export const beginBody: Schema<BeginBody> = v.pipe(
  v.strictObject({
    name: v.optional(storeName),
    step: v.optional(count),
    worldSize: v.optional(v.pipe(count, v.minValue(1), v.maxValue(1_000_000))),
    commit: v.optional(v.picklist(["explicit", "auto"])),
    labels: v.optional(labelsSchema),
    expiresIn: v.optional(v.pipe(count, v.minValue(1))),
    bytes: v.optional(count),
  }),
  v.check(({ name, step }) => name !== undefined || step !== undefined, "name or step is needed"),
  v.check(({ name }) => name !== "latest", 'the name "latest" is taken by the service'),
  v.check(
    ({ commit, step, worldSize }) => commit !== "auto" || (step !== undefined && worldSize !== undefined),
    'commit "auto" needs step and worldSize',
  ),
);

/** Body of `linkFile`: bytes by their digest, or by the file of a committed checkpoint that has them. */
export interface LinkBody {
  readonly file: string;
  readonly sha256?: string | undefined;
  readonly from?: { readonly checkpoint: string; readonly file: string } | undefined;
}

/** Body of `linkFile`. */
export const linkBody: Schema<LinkBody> = v.pipe(
  v.strictObject({
    file: storeName,
    sha256: v.optional(sha256),
    from: v.optional(v.strictObject({ checkpoint: storeName, file: storeName })),
  }),
  v.check(
    (body) => (body.sha256 === undefined) !== (body.from === undefined),
    "either sha256 or from is needed",
  ),
);

/** Body of `commitSave`: the manifest that is meant, when the client knows it. */
export const commitBody: Schema<{ readonly manifest?: string | undefined }> = v.strictObject({
  manifest: v.optional(sha256),
});

/** Body of `noteCheckpoint`. */
export const patchBody: Schema<{
  readonly pinned?: boolean | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
}> = v.strictObject({ pinned: v.optional(v.boolean()), labels: v.optional(labelsSchema) });

/** Query of `createUpload`. */
export const uploadQuery: Schema<{ readonly file?: string | undefined }> = v.strictObject({
  file: v.optional(storeName),
});

/** A page of a list. */
export interface PageQuery {
  readonly limit?: number | undefined;
  /** The last name of the page before. */
  readonly after?: string | undefined;
  /** Names alone, for which no manifest is read. */
  readonly names?: "only" | undefined;
}

/** Query of lists. */
export const pageQuery: Schema<PageQuery> = v.strictObject({
  limit: v.optional(v.pipe(queryCount, v.minValue(1), v.maxValue(1000))),
  after: v.optional(storeName),
  names: v.optional(v.literal("only")),
});

/** Query of `getTensor`: a box, or none for the whole tensor. */
export const boxQuery: Schema<{
  readonly offsets?: readonly number[] | undefined;
  readonly sizes?: readonly number[] | undefined;
}> = v.pipe(
  v.strictObject({ offsets: v.optional(extents), sizes: v.optional(extents) }),
  v.check(
    ({ offsets, sizes }) => (offsets === undefined) === (sizes === undefined),
    "offsets and sizes belong together",
  ),
);

/** Which tensors an export has, and how it is cut. */
export interface ExportQuery {
  readonly prefix?: string | undefined;
  readonly maxShardSize?: number | undefined;
}

/** Query of exports. */
export const exportQuery: Schema<ExportQuery> = v.strictObject({
  prefix: v.optional(v.pipe(v.string(), v.maxLength(4096))),
  maxShardSize: v.optional(v.pipe(queryCount, v.minValue(1))),
});

/** No query. */
export const noQuery: Schema<Readonly<Record<string, never>>> = v.strictObject({});

const storedFile = v.object({ file: v.string(), length: count, sha256 });

/** A save. */
export const saveAnswer: v.GenericSchema = v.object({
  id: v.string(),
  run: v.string(),
  checkpoint: v.string(),
  step: v.optional(count),
  worldSize: v.optional(count),
  commit: v.picklist(["explicit", "auto"]),
  state: v.picklist(["open", "committed", "aborted", "expired"]),
  labels: v.record(v.string(), v.string()),
  createdAt: count,
  expiresAt: count,
  manifest: v.optional(sha256),
  files: v.array(storedFile),
  uploads: v.array(
    v.object({
      id: v.string(),
      file: v.optional(v.string()),
      offset: count,
      length: v.optional(count),
    }),
  ),
  missingRanks: v.array(count),
});

/** A committed checkpoint. */
export const checkpointAnswer: v.GenericSchema = v.object({
  name: v.string(),
  step: v.optional(count),
  worldSize: v.optional(count),
  bytes: v.optional(count),
  createdAt: v.optional(count),
  manifest: sha256,
  readable: v.boolean(),
  pinned: v.boolean(),
  labels: v.record(v.string(), v.string()),
});

/** Files of a checkpoint. */
export const filesAnswer: v.GenericSchema = v.object({
  files: v.array(v.object({ file: v.string(), length: v.optional(count), sha256: v.optional(sha256) })),
});

/** Tensors of a checkpoint. */
export const tensorsAnswer: v.GenericSchema = v.object({
  tensors: v.array(
    v.object({ name: v.string(), dtype: v.string(), shape: v.array(count), bytes: count, chunks: count }),
  ),
});

/** A verification. */
export const jobAnswer: v.GenericSchema = v.object({
  id: v.string(),
  state: v.picklist(["running", "done", "failed"]),
  faults: v.optional(v.array(v.object({ file: v.string(), problem: v.string() }))),
});

/** A problem (RFC 9457); each type has fields of its own. */
export const problemAnswer: v.GenericSchema = v.looseObject({
  type: v.string(),
  title: v.string(),
  status: count,
  detail: v.string(),
});

/**
 * What requests and answers of the service look like, for checks and for the OpenAPI document.
 *
 * @module
 */
import * as v from "valibot";
import { isStoreName } from "../../stores/names.ts";
import { labelsSchema, metricsSchema } from "../notes.ts";
import type { WantedBox } from "../read-plan.ts";

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

/** Body of `commitSave`: what is meant, when the client knows it. */
export interface CommitBody {
  /** SHA-256 of the manifest. */
  readonly manifest?: string | undefined;
  /** SHA-256 of every rank's manifest, in rank order. */
  readonly ranks?: readonly string[] | undefined;
}

/** Body of `commitSave`. */
export const commitBody: Schema<CommitBody> = v.strictObject({
  manifest: v.optional(sha256),
  ranks: v.optional(v.array(sha256)),
});

/** Body of `noteCheckpoint`. */
export const patchBody: Schema<{
  readonly pinned?: boolean | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly metrics?: Readonly<Record<string, number>> | undefined;
}> = v.strictObject({
  pinned: v.optional(v.boolean()),
  labels: v.optional(labelsSchema),
  metrics: v.optional(metricsSchema),
});

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

/** The name of a dtype in a query. Whether there is one, and a conversion into it, depends on what was saved. */
const dtypeName = v.pipe(v.string(), v.regex(/^[a-z0-9_]{1,32}$/));

/** Query of `getTensor`: a box, or none for the whole tensor; and a dtype, or none for the saved one. */
export const boxQuery: Schema<{
  readonly offsets?: readonly number[] | undefined;
  readonly sizes?: readonly number[] | undefined;
  readonly dtype?: string | undefined;
}> = v.pipe(
  v.strictObject({
    offsets: v.optional(extents),
    sizes: v.optional(extents),
    dtype: v.optional(dtypeName),
  }),
  v.check(
    ({ offsets, sizes }) => (offsets === undefined) === (sizes === undefined),
    "offsets and sizes belong together",
  ),
);

/** Body of `planReads`: boxes of tensors, whole ones where nothing is said. */
export interface PlanBody {
  readonly tensors: readonly WantedBox[];
  readonly maxOverRead?: number | undefined;
}

const boxExtents = v.pipe(v.array(count), v.maxLength(32));

/** Body of `planReads`. */
export const planBody: Schema<PlanBody> = v.strictObject({
  tensors: v.pipe(
    v.array(
      v.pipe(
        v.strictObject({
          name: v.pipe(v.string(), v.minLength(1), v.maxLength(4096)),
          offsets: v.optional(boxExtents),
          sizes: v.optional(boxExtents),
        }),
        v.check(
          ({ offsets, sizes }) => (offsets === undefined) === (sizes === undefined),
          "offsets and sizes belong together",
        ),
      ),
    ),
    v.minLength(1),
    v.maxLength(10_000),
  ),
  maxOverRead: v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(1e6))),
});

/** Which tensors an export has, in which dtype, and how it is cut. */
export interface ExportQuery {
  readonly prefix?: string | undefined;
  readonly dtype?: string | undefined;
  readonly maxShardSize?: number | undefined;
}

/** Query of exports. */
export const exportQuery: Schema<ExportQuery> = v.strictObject({
  prefix: v.optional(v.pipe(v.string(), v.maxLength(4096))),
  dtype: v.optional(dtypeName),
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
  committedAt: v.optional(count),
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
  exportable: v.boolean(),
  pinned: v.boolean(),
  labels: v.record(v.string(), v.string()),
  metrics: v.record(v.string(), v.number()),
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

const extentsAnswer = v.array(count);

/** A plan of reads. */
export const planAnswer: v.GenericSchema = v.object({
  manifest: sha256,
  boxes: v.array(
    v.object({
      name: v.string(),
      dtype: v.string(),
      offsets: extentsAnswer,
      sizes: extentsAnswer,
      bytes: count,
    }),
  ),
  files: v.array(v.object({ file: v.string(), sha256, length: count, block: count })),
  reads: v.array(
    v.object({
      file: v.string(),
      sha256,
      begin: count,
      end: count,
      crc32: extentsAnswer,
      parts: v.array(
        v.object({
          box: count,
          length: count,
          source: count,
          target: count,
          counts: extentsAnswer,
          sourceStrides: extentsAnswer,
          targetStrides: extentsAnswer,
        }),
      ),
    }),
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

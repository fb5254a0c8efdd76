/**
 * What one service takes at most. Every bound exists so that no client can make it hold or wait without end.
 *
 * @module
 */
import { MAX_MANIFEST_BYTES } from "../manifest.ts";

/** Bounds of a service. Sizes in bytes, times in seconds. */
export interface ServiceLimits {
  /** One append to an upload. */
  readonly appendBytes: number;
  /** One file. */
  readonly fileBytes: number;
  /** One manifest or rank manifest. */
  readonly manifestBytes: number;
  /** One JSON body. */
  readonly jsonBytes: number;
  /** All headers of a request, and its URL. */
  readonly headerBytes: number;
  /** Saves that are open in one run. */
  readonly savesPerRun: number;
  /** Files of one save, finished or being uploaded. */
  readonly filesPerSave: number;
  /** Runs; a save in another is refused. */
  readonly runs: number;
  /** Requests worked on at once, uploads among them. */
  readonly requests: number;
  /** Answers of more than 1 MiB being sent at once. */
  readonly transfers: number;
  /** Event streams open at once. */
  readonly eventStreams: number;
  /** Requests a second that one token (or one service without tokens) may make on average, and at once after a rest. */
  readonly requestsPerSecond: number;
  readonly requestBurst: number;
  /** Life of a save that is neither committed nor aborted; also how long the outcome of an ended one is remembered. */
  readonly saveSeconds: number;
  /** How long an upload may send nothing within a request. */
  readonly idleSeconds: number;
  /** How long bytes that no checkpoint and no save refers to are kept, for a save that is about to. */
  readonly graceSeconds: number;
  /** What is never filled of the disk. */
  readonly keepFreeBytes: number;
}

const MIB = 1024 * 1024;

/** Used where a service's options do not say. */
export const DEFAULT_LIMITS: ServiceLimits = Object.freeze({
  appendBytes: 1024 * MIB,
  fileBytes: 64 * 1024 * MIB,
  manifestBytes: MAX_MANIFEST_BYTES,
  jsonBytes: MIB,
  headerBytes: 16 * 1024,
  savesPerRun: 16,
  filesPerSave: 10_000,
  runs: 1000,
  requests: 256,
  transfers: 256,
  eventStreams: 64,
  requestsPerSecond: 5000,
  requestBurst: 10_000,
  saveSeconds: 24 * 60 * 60,
  idleSeconds: 60,
  graceSeconds: 60 * 60,
  keepFreeBytes: 64 * MIB,
});

/** `Upload-Limit` (draft-ietf-httpbis-resumable-upload): what an upload and one append to it may have, in bytes. */
export function uploadLimit({ fileBytes, appendBytes }: ServiceLimits): string {
  return `max-size=${fileBytes}, max-append-size=${appendBytes}`;
}

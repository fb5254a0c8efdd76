/**
 * The service behind the routes: runs in a directory, opened when they are first asked for, with the bounds and the
 * clock that all share. One process at a time serves a directory.
 *
 * @module
 */
import { mkdir, readdir, statfs } from "node:fs/promises";
import { resolve } from "node:path";
import { exists } from "../stores/directory-files.ts";
import { nodeFileSystem } from "../stores/file-system.ts";
import { isStoreName } from "../stores/names.ts";
import type { TokenRecord } from "./auth.ts";
import { createJobs, type Jobs } from "./jobs.ts";
import { DEFAULT_LIMITS, type ServiceLimits } from "./limits.ts";
import { createManifests, type Manifests } from "./manifests.ts";
import type { OpenCount } from "./open-count.ts";
import { Problem } from "./problem.ts";
import { openRun, type Run, sweepRun } from "./run.ts";

/** Options of a service. */
export interface CheckpointAppOptions {
  /** Where checkpoints lie, a folder per run; made when it is not there. */
  readonly directory: string;
  /** Who may do what, see `readTokenFile`. Without tokens, requests from this host alone are answered, and all of them. */
  readonly tokens?: readonly TokenRecord[];
  /** Answers requests from anywhere although there are no tokens: for an app that has checked them itself. Default false. */
  readonly trustRequests?: boolean;
  readonly limits?: Partial<ServiceLimits>;
  /**
   * Whether a commit must prove its manifest and files. Default true; false takes any files, as a directory does, for
   * formats of others.
   */
  readonly proveCommits?: boolean;
  /** The clock, in milliseconds since the epoch. */
  readonly now?: () => number;
  /** Bytes free on the disk. Default: what the file system of `directory` says. */
  readonly freeBytes?: () => Promise<number>;
  /** Told of every request once it is answered. Its path has no query, and nothing of it is secret. */
  readonly onRequest?: (entry: RequestLogEntry) => void;
  /** Told of what went wrong inside, which clients are not told. */
  readonly onError?: (error: unknown) => void;
}

/** One answered request. */
export interface RequestLogEntry {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly milliseconds: number;
  /** Name of the token, never the token. */
  readonly principal: string;
}

/** A service. */
export interface Service {
  readonly limits: ServiceLimits;
  readonly proveCommits: boolean;
  readonly now: () => number;
  readonly manifests: Manifests;
  readonly jobs: Jobs;
  /** Event streams. */
  readonly streams: OpenCount;
  /** Answers that are being sent. */
  readonly transfers: OpenCount;
  /** Runs that are there. */
  runNames(): Promise<readonly string[]>;
  /** A run that is there. @throws Problem otherwise. */
  run(name: string): Promise<Run>;
  /** A run, new if need be. @throws Problem when there are as many as may be. */
  makeRun(name: string): Promise<Run>;
  /** @throws Problem when the disk has no room for `bytes` more beside what was promised to others. */
  reserve(bytes: number): Promise<void>;
  /** Ends what has expired and frees what nothing needs, if that has not been done for a minute. */
  sweep(): Promise<void>;
}

const SWEEP_EVERY_MS = 60_000;

/** Opens a service. Touches no file before it is used. */
export function openService(options: CheckpointAppOptions): Service {
  const directory = resolve(options.directory);
  const { now = Date.now, proveCommits = true } = options;
  const limits = Object.freeze({ ...DEFAULT_LIMITS, ...options.limits });
  const freeBytes = options.freeBytes ?? (() => freeOf(directory));
  const runs = new Map<string, Promise<Run>>();
  let swept = now();

  const runNames = async (): Promise<readonly string[]> => {
    await mkdir(directory, { recursive: true });
    const entries = await readdir(directory, { withFileTypes: true });
    const names = entries.flatMap((entry) =>
      entry.isDirectory() && isStoreName(entry.name) ? [entry.name] : [],
    );
    return [...new Set([...names, ...runs.keys()])].sort();
  };
  const openOnce = (name: string): Promise<Run> => {
    let run = runs.get(name);
    if (run === undefined) {
      run = mkdir(directory, { recursive: true }).then(() => openRun(directory, name, now));
      runs.set(name, run);
      run.catch(() => runs.delete(name));
    }
    return run;
  };
  const isThere = async (name: string): Promise<boolean> =>
    runs.has(name) ||
    (await exists(nodeFileSystem, `${directory}/${name}`)) ||
    (await exists(nodeFileSystem, `${directory}/.service/${name}`));

  return {
    limits,
    proveCommits,
    now,
    manifests: createManifests(),
    jobs: createJobs(),
    streams: { open: 0, limit: limits.eventStreams },
    transfers: { open: 0, limit: limits.transfers },
    runNames,
    async makeRun(name: string): Promise<Run> {
      const there = await runNames();
      if (there.includes(name) || there.length < limits.runs) return openOnce(name);
      throw new Problem("limit", `there are ${there.length} runs, which is the most`, {
        fields: { limit: limits.runs },
      });
    },
    async run(name: string): Promise<Run> {
      if (await isThere(name)) return openOnce(name);
      throw new Problem("not-found", `there is no run ${name}`);
    },
    async reserve(bytes: number): Promise<void> {
      const opened = await Promise.all(runs.values());
      const uploads = opened.flatMap((run) =>
        [...run.saves.values()].flatMap((save) => [...save.uploads.values()]),
      );
      const promised = uploads.reduce((sum, upload) => sum + upload.due, 0);
      const free = (await freeBytes()) - promised - limits.keepFreeBytes;
      if (bytes > free) {
        throw new Problem("storage", `${bytes} bytes are needed, ${Math.max(0, Math.floor(free))} are free`, {
          fields: { needed: bytes, free: Math.max(0, Math.floor(free)) },
        });
      }
    },
    async sweep(): Promise<void> {
      if (now() - swept < SWEEP_EVERY_MS) return;
      swept = now();
      for (const run of runs.values()) await sweepRun(await run, now(), limits);
    },
  };
}

async function freeOf(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

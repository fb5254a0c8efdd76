/**
 * Work that goes on after its request was answered. One at a time; the last ones' results are remembered.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { Problem } from "./problem.ts";

/** A job and what came of it. */
export interface Job {
  readonly id: string;
  /** What it works on; a job is found only by who knows both. */
  readonly subject: string;
  readonly startedAt: number;
  state: "running" | "done" | "failed";
  result: unknown;
}

/** The jobs of a service. */
export interface Jobs {
  /** Starts a job. @throws Problem when one is running. */
  start(subject: string, now: number, work: () => Promise<unknown>): Job;
  find(subject: string, id: string): Job | undefined;
}

const REMEMBERED = 64;

/** No jobs yet. */
export function createJobs(): Jobs {
  const jobs = new Map<string, Job>();
  return {
    start(subject, now, work): Job {
      if ([...jobs.values()].some((job) => job.state === "running")) {
        throw new Problem("limit", "another verification is running", { headers: { "retry-after": "1" } });
      }
      const job: Job = { id: randomUUID(), subject, startedAt: now, state: "running", result: undefined };
      jobs.set(job.id, job);
      const [oldest] = jobs.keys();
      if (jobs.size > REMEMBERED && oldest !== undefined) jobs.delete(oldest);
      work().then(
        (result) => Object.assign(job, { state: "done", result }),
        () => Object.assign(job, { state: "failed" }),
      );
      return job;
    },
    find(subject, id): Job | undefined {
      const job = jobs.get(id);
      return job?.subject === subject ? job : undefined;
    },
  };
}

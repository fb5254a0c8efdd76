/**
 * The transport "threads": one worker thread per rank, on this host.
 *
 * Threads end by themselves when told that they may; terminating them is the last resort, for ranks that do not notice
 * that the job failed because they compute, wait for something else, or are being killed.
 *
 * @module
 */
import { Worker } from "node:worker_threads";
import { AbortError, ConfigError, DeviceError } from "../../../core/contracts/errors.ts";
import type { LaunchOptions, RankJob, RankProgram, Transport } from "../../../core/contracts/transport.ts";
import { fromRemoteError, type RemoteError, toRemoteError } from "../remote-error.ts";
import { Control } from "./control.ts";
import { GroupBlock } from "./group-block.ts";
import { createRankMemories } from "./memories.ts";
import { LEAVE, type RankMessage, type RankStart } from "./messages.ts";

/** How long ranks have to end by themselves after one failed, or all are done, in milliseconds. */
const GRACE = 1000;
/** The same when they are killed. */
const KILL_GRACE = 200;
/** How long a terminated thread is waited for; one in the middle of a long kernel ends after it. */
const TERMINATION = 400;

/** Runs every rank in a thread of its own. */
export const threadsTransport: Transport = {
  name: "threads",
  launch(program: RankProgram, options: LaunchOptions): RankJob {
    const { worldSize } = options;
    if (!Number.isInteger(worldSize) || worldSize < 1) {
      throw new ConfigError(`collective threads: world size is ${worldSize}; it must be a positive integer`);
    }
    return new ThreadsJob(program, options);
  },
};

class ThreadsJob implements RankJob {
  readonly results: Promise<readonly unknown[]>;
  readonly #settled: PromiseWithResolvers<readonly unknown[]> = Promise.withResolvers();
  readonly #options: LaunchOptions;
  readonly #control: Control;
  readonly #values: unknown[];
  /** Ranks whose function has ended, and how. */
  readonly #outcomes: Map<number, Error | "done"> = new Map();
  readonly #running: Map<number, Worker> = new Map();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #killed = false;

  constructor(program: RankProgram, options: LaunchOptions) {
    const { worldSize } = options;
    this.#options = options;
    this.#values = new Array(worldSize).fill(undefined);
    this.#control = Control.create(worldSize);
    this.results = this.#settled.promise;
    this.results.catch(() => {});
    const ranks = Array.from({ length: worldSize }, createRankMemories);
    const shared = { control: this.#control.memory, ranks };
    const group = GroupBlock.allocate(this.#control, worldSize);
    for (let rank = 0; rank < worldSize; rank++) this.#spawn({ rank, program, shared, group });
  }

  requestStop(): void {
    this.#control.requestStop();
  }

  async kill(): Promise<void> {
    if (this.#running.size > 0 && !this.#killed) {
      this.#killed = true;
      this.#control.fail(this.#options.worldSize, { rank: -1, text: "run was killed" });
      this.#terminateAfter(KILL_GRACE);
    }
    await this.results.catch(() => {});
  }

  #spawn(start: RankStart): void {
    const { rank } = start;
    const worker = new Worker(new URL("./rank-worker.ts", import.meta.url), { workerData: start });
    this.#running.set(rank, worker);
    worker.on("message", (message: RankMessage) => this.#hear(rank, worker, message));
    worker.on("error", (error) => this.#fail(rank, toRemoteError(error)));
    worker.on("exit", (code) => {
      if (!this.#outcomes.has(rank)) this.#vanish(rank, code);
      this.#left(rank);
    });
  }

  #hear(rank: number, worker: Worker, message: RankMessage): void {
    if (message.kind === "report") {
      this.#options.onMessage?.(rank, message.message);
      return;
    }
    if (message.kind === "failed") {
      this.#fail(rank, message.error);
    } else {
      this.#values[rank] = message.result;
      this.#outcomes.set(rank, "done");
      if (this.#outcomes.size === this.#options.worldSize) this.#terminateAfter(GRACE);
    }
    if (!message.kept) {
      worker.postMessage(LEAVE);
      return;
    }
    // It idles until the process ends, which it does not hold up.
    worker.unref();
    this.#left(rank);
  }

  /** A rank's thread is gone, or will not be heard of again. */
  #left(rank: number): void {
    if (this.#running.delete(rank) && this.#running.size === 0) this.#settle();
  }

  #vanish(rank: number, code: number): void {
    const text = `thread ended with code ${code} before the rank's function did`;
    this.#fail(rank, toRemoteError(new DeviceError(text)));
  }

  #fail(rank: number, error: RemoteError): void {
    if (this.#outcomes.has(rank)) return;
    this.#outcomes.set(rank, fromRemoteError(rank, error));
    const text = `rank ${rank} failed: ${error.message}`;
    this.#control.fail(this.#options.worldSize, { rank, text });
    this.#terminateAfter(GRACE);
  }

  /** Ends what still runs after a while; the first deadline counts, unless a nearer one comes. */
  #terminateAfter(milliseconds: number): void {
    if (this.#timer !== undefined && milliseconds === GRACE) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      for (const worker of this.#running.values()) void worker.terminate();
      this.#timer = setTimeout(() => this.#settle(), TERMINATION);
    }, milliseconds);
  }

  #settle(): void {
    clearTimeout(this.#timer);
    const errors = [...this.#outcomes.values()].filter((outcome) => outcome !== "done");
    // Other ranks fail in consequence: the record says who was first.
    const first = this.#outcomes.get(this.#control.fault()?.rank ?? -1);
    if (this.#killed) this.#settled.reject(new AbortError("run was killed"));
    else if (errors.length > 0) this.#settled.reject(first instanceof Error ? first : errors[0]);
    else this.#settled.resolve(this.#values);
  }
}

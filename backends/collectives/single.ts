/**
 * The group of one: every operation is a copy onto itself. Also what other transports use for subgroups of one rank.
 *
 * @module
 */
import type {
  Collective,
  ReductionOp,
  SharedInputs,
  SharedWindow,
  Work,
} from "../../core/contracts/collective.ts";
import type { DType, HostArray } from "../../core/contracts/dtype.ts";
import { CollectiveError, ConfigError, StateError } from "../../core/contracts/errors.ts";
import type { LaunchOptions, RankJob, RankProgram, Transport } from "../../core/contracts/transport.ts";
import { allGatherCall, allReduceCall, broadcastCall, checkSplit, reduceScatterCall } from "./calls.ts";
import { copyBytes } from "./elements.ts";
import { HeldShares, privateWindow, ShareLedger } from "./held-shares.ts";
import { runInProcess } from "./in-process.ts";

/** A collective of size 1. `name` is the transport it stands for. */
export function singleCollective(name = "single"): Collective {
  return new SingleCollective(name);
}

/** Runs one rank in this event loop. */
export const singleTransport: Transport = {
  name: "single",
  launch(program: RankProgram, options: LaunchOptions): RankJob {
    if (options.worldSize !== 1) {
      throw new ConfigError(`collective single: world size is ${options.worldSize}; it must be 1`);
    }
    const collective = new SingleCollective("single");
    return runInProcess(program, options, {
      collectives: [collective],
      fail: (error) => collective.fail(error),
    });
  },
};

class SingleCollective implements Collective {
  readonly name: string;
  readonly rank = 0;
  readonly size = 1;
  readonly #held: HeldShares = new HeldShares();
  readonly #ledger: ShareLedger = new ShareLedger();
  /** The last share, which the next one follows. */
  #shared: Promise<unknown> = Promise.resolve();
  #failure: Error | undefined;

  constructor(name: string) {
    this.name = name;
  }

  allGather(output: HostArray, input: HostArray): Work {
    allGatherCall(1, output, input);
    return this.#copy(output, input);
  }

  reduceScatter(output: HostArray, input: HostArray, op: ReductionOp, dtype: DType): Work {
    reduceScatterCall(1, output, input, op, dtype);
    return this.#copy(output, input);
  }

  allReduce(data: HostArray, op: ReductionOp, dtype: DType): Work {
    allReduceCall(data, op, dtype);
    return this.#copy(data, data);
  }

  broadcast(data: HostArray, root: number): Work {
    broadcastCall(1, data, root);
    return this.#copy(data, data);
  }

  share(input: HostArray, filled?: Promise<unknown>): Promise<SharedInputs> {
    const before = this.#shared;
    const share = async (): Promise<SharedInputs> => {
      try {
        await filled;
      } catch (reason) {
        this.abort(reason instanceof Error ? reason.message : String(reason));
        throw reason;
      }
      await before;
      await this.barrier().wait();
      return this.#held.hold(this.#ledger.open([input]));
    };
    const shared = this.#failure ? Promise.reject(this.#failure) : share();
    this.#shared = shared.catch(() => {});
    return shared;
  }

  window(byteLength: number): SharedWindow {
    return privateWindow(byteLength);
  }

  barrier(): Work {
    const failure = this.#failure;
    return { wait: () => (failure ? Promise.reject(failure) : Promise.resolve()) };
  }

  async split(color: number, key: number): Promise<Collective> {
    checkSplit(color, key);
    await this.barrier().wait();
    return new SingleCollective(this.name);
  }

  abort(reason: string): void {
    this.fail(new CollectiveError(`collective aborted by rank 0: ${reason}`, 0));
  }

  async close(): Promise<void> {
    this.#held.releaseAll();
    this.fail(new StateError("collective is closed: no call may follow close"));
  }

  fail(error: Error): void {
    this.#failure ??= error;
    this.#ledger.fail(this.#failure);
  }

  #copy(output: HostArray, input: HostArray): Work {
    const work = this.barrier();
    if (!this.#failure) copyBytes(output, input);
    return work;
  }
}

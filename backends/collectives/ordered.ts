/**
 * What collectives of several ranks share: a call is checked and described, takes its place in the order of its group,
 * and, when it is wrong in itself, fails the group, lest the other ranks wait for it. How ranks reach each other is the
 * transport's.
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
import { StateError } from "../../core/contracts/errors.ts";
import {
  allGatherCall,
  allReduceCall,
  BARRIER_CALL,
  broadcastCall,
  type Call,
  checkSplit,
  reduceScatterCall,
  SPLIT_CALL,
  shareCall,
} from "./calls.ts";
import { SPLIT_FIELDS, type SplitPlace, splitPlace } from "./split.ts";

/** One operation of one rank. */
export interface Posting {
  readonly call: Call;
  /** What this rank gives; the same array as `output` for operations in place. */
  readonly input: HostArray | undefined;
  readonly output: HostArray;
  /** Number of the operation in its group. */
  readonly sequence: number;
}

/** Where a rank is after a split. */
export interface SplitResult extends SplitPlace {
  readonly color: number;
  /** Number of the operation that split the group. */
  readonly sequence: number;
  /** What rank 0 of the parent group reserved. */
  readonly reserved: number;
}

/** Nothing to give, or to get. */
export const NOTHING: HostArray = new Uint8Array(0);

/** One rank's view of a group, whose operations give `Result` when they are done. */
export abstract class OrderedCollective<Result> implements Collective {
  abstract readonly name: string;
  readonly rank: number;
  readonly size: number;
  readonly #subgroups: Collective[] = [];
  #sequence = 0;
  /** Resolves when the last operation has ended, well or not. */
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  protected constructor(rank: number, size: number) {
    this.rank = rank;
    this.size = size;
  }

  /** Performs an operation with the other ranks. Its input is complete when `filled` resolves, or already. */
  protected abstract perform(posting: Posting, filled: Promise<unknown> | undefined): Promise<Result>;

  /** What a share gives its caller. Called at once, in the order of calls. */
  protected abstract hold(called: Promise<Result>): Promise<SharedInputs>;

  /** Lets go of what is still held. */
  protected abstract releaseShares(): void;

  /** Something for all subgroups of a split, asked of rank 0 alone. */
  protected abstract reserve(): number;

  /** The subgroup that this rank is in. */
  protected abstract subgroup(result: SplitResult): Collective;

  /** This rank makes no more calls. */
  protected abstract leave(): void;

  abstract window(byteLength: number): SharedWindow;

  abstract abort(reason: string): void;

  allGather(output: HostArray, input: HostArray): Work {
    return this.#start(() => allGatherCall(this.size, output, input), input, output);
  }

  reduceScatter(output: HostArray, input: HostArray, op: ReductionOp, dtype: DType): Work {
    return this.#start(() => reduceScatterCall(this.size, output, input, op, dtype), input, output);
  }

  allReduce(data: HostArray, op: ReductionOp, dtype: DType): Work {
    return this.#start(() => allReduceCall(data, op, dtype), data, data);
  }

  broadcast(data: HostArray, root: number): Work {
    const input = this.rank === root ? data : undefined;
    return this.#start(() => broadcastCall(this.size, data, root), input, data);
  }

  async share(input: HostArray, filled?: Promise<unknown>): Promise<SharedInputs> {
    return this.hold(this.#begin(() => shareCall(input), input, NOTHING, filled));
  }

  barrier(): Work {
    return this.#start(() => BARRIER_CALL, undefined, NOTHING);
  }

  async split(color: number, key: number): Promise<Collective> {
    const sequence = this.#sequence;
    const row = Float64Array.of(color, key, 0);
    const table = new Float64Array(SPLIT_FIELDS * this.size);
    const describe = (): Call => {
      checkSplit(color, key);
      if (this.rank === 0) row[2] = this.reserve();
      return SPLIT_CALL;
    };
    await this.#begin(describe, row, table);
    const place = splitPlace(table, this.rank);
    const subgroup = this.subgroup({ ...place, color, sequence, reserved: table[2]! });
    this.#subgroups.push(subgroup);
    return subgroup;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#last;
    this.releaseShares();
    await Promise.all(this.#subgroups.map((subgroup) => subgroup.close()));
    this.leave();
  }

  /** Fails the group for a reason that this rank met, and throws it. */
  protected failWith(reason: unknown): never {
    this.abort(reason instanceof Error ? reason.message : String(reason));
    throw reason;
  }

  #start(describe: () => Call, input: HostArray | undefined, output: HostArray): Work {
    const done = this.#begin(describe, input, output);
    return {
      wait: async () => {
        await done;
      },
    };
  }

  #begin(
    describe: () => Call,
    input: HostArray | undefined,
    output: HostArray,
    filled?: Promise<unknown>,
  ): Promise<Result> {
    if (this.#closed) throw new StateError("collective is closed: no call may follow close");
    let call: Call;
    try {
      call = describe();
    } catch (error) {
      this.failWith(error);
    }
    const done = this.perform({ call, input, output, sequence: this.#sequence++ }, filled);
    // A failed operation that nobody awaits must not end the process, nor the last one's result outlive its use.
    this.#last = done.then(
      () => {},
      () => {},
    );
    return done;
  }
}

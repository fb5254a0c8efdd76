/**
 * N ranks in one event loop. The last rank to call an operation performs it for all; results are those of any other
 * transport, which makes this one the oracle, and the way to run worlds larger than the machine.
 *
 * @module
 */
import type {
  Collective,
  ReductionOp,
  SharedInputs,
  SharedWindow,
  Work,
} from "../../../core/contracts/collective.ts";
import type { DType, HostArray } from "../../../core/contracts/dtype.ts";
import { CollectiveError, ConfigError, StateError } from "../../../core/contracts/errors.ts";
import {
  allGatherCall,
  allReduceCall,
  BARRIER_CALL,
  broadcastCall,
  type Call,
  checkSplit,
  mismatch,
  reduceScatterCall,
  SPLIT_CALL,
  shareCall,
} from "../calls.ts";
import { HeldShares, type OpenShare, privateWindow, ShareLedger } from "../held-shares.ts";
import { SPLIT_FIELDS, splitPlace } from "../split.ts";
import { type Operands, perform } from "./perform.ts";

/** The collectives of a new group, in rank order. @throws ConfigError unless `size` is a positive integer. */
export function localCollectives(size: number): Collective[] {
  if (!Number.isInteger(size) || size < 1) {
    throw new ConfigError(`collective local: world size is ${size}; it must be a positive integer`);
  }
  return new LocalGroup(size).collectives;
}

/** As `localCollectives`, with a way to make every call of every rank reject, subgroups included. */
export function localWorld(size: number): { collectives: Collective[]; fail(error: Error): void } {
  const collectives = localCollectives(size) as LocalCollective[];
  return { collectives, fail: (error) => collectives[0]!.group.failAll(error) };
}

/** One operation that not all ranks have called yet. */
interface Slot {
  readonly calls: Call[];
  readonly operands: Operands[];
  /** With what a share gives to every rank. */
  readonly done: PromiseWithResolvers<OpenShare | undefined>;
  arrived: number;
}

/** What the ranks of a group share. */
class LocalGroup {
  readonly size: number;
  readonly collectives: LocalCollective[];
  readonly #slots = new Map<number, Slot>();
  readonly #subgroups = new Map<string, LocalGroup>();
  readonly #ledger: ShareLedger = new ShareLedger();
  /** The operation that completes next. */
  #next = 0;
  #failure: Error | undefined;

  constructor(size: number) {
    this.size = size;
    this.collectives = Array.from({ length: size }, (_, rank) => new LocalCollective(this, rank));
  }

  call(rank: number, sequence: number, call: Call, operands: Operands): Promise<OpenShare | undefined> {
    if (this.#failure) return handled(Promise.reject(this.#failure));
    let slot = this.#slots.get(sequence);
    if (!slot) {
      slot = { calls: [], operands: [], done: Promise.withResolvers(), arrived: 0 };
      handled(slot.done.promise);
      this.#slots.set(sequence, slot);
    }
    slot.calls[rank] = call;
    slot.operands[rank] = operands;
    slot.arrived++;
    this.#advance();
    return slot.done.promise;
  }

  /** Performs what all ranks have called, in order: a share may be filled later than its successors are called. */
  #advance(): void {
    let slot = this.#slots.get(this.#next);
    while (slot?.arrived === this.size) {
      const call = slot.calls[0]!;
      const error = mismatch(this.#next, slot.calls);
      if (error) {
        this.fail(error);
        return;
      }
      this.#slots.delete(this.#next++);
      perform(call, slot.operands);
      const inputs = slot.operands.map(({ input }) => input);
      slot.done.resolve(call.name === "share" ? this.#ledger.open(inputs) : undefined);
      slot = this.#slots.get(this.#next);
    }
  }

  /** The group that the ranks of one color share; whoever comes first makes it. */
  subgroup(sequence: number, color: number, size: number): LocalGroup {
    const key = `${sequence}:${color}`;
    let group = this.#subgroups.get(key);
    if (!group) {
      group = new LocalGroup(size);
      if (this.#failure) group.fail(this.#failure);
      this.#subgroups.set(key, group);
    }
    return group;
  }

  fail(error: Error): void {
    this.leave(error);
    this.#ledger.fail(this.#failure!);
  }

  /** Calls fail from now on; what was shared before stays. */
  leave(error: Error): void {
    this.#failure ??= error;
    for (const slot of this.#slots.values()) slot.done.reject(this.#failure);
    this.#slots.clear();
  }

  failAll(error: Error): void {
    this.fail(error);
    for (const group of this.#subgroups.values()) group.failAll(error);
  }
}

/** One rank's view of a group. */
class LocalCollective implements Collective {
  readonly name = "local";
  readonly group: LocalGroup;
  readonly rank: number;
  readonly size: number;
  #sequence = 0;
  #last: Promise<unknown> = Promise.resolve();
  readonly #held: HeldShares = new HeldShares();
  readonly #subgroups: Collective[] = [];
  #closed = false;

  constructor(group: LocalGroup, rank: number) {
    this.group = group;
    this.rank = rank;
    this.size = group.size;
  }

  allGather(output: HostArray, input: HostArray): Work {
    return this.#start(() => allGatherCall(this.size, output, input), { input, output });
  }

  reduceScatter(output: HostArray, input: HostArray, op: ReductionOp, dtype: DType): Work {
    return this.#start(() => reduceScatterCall(this.size, output, input, op, dtype), { input, output });
  }

  allReduce(data: HostArray, op: ReductionOp, dtype: DType): Work {
    return this.#start(() => allReduceCall(data, op, dtype), { input: data, output: data });
  }

  broadcast(data: HostArray, root: number): Work {
    return this.#start(() => broadcastCall(this.size, data, root), { input: data, output: data });
  }

  async share(input: HostArray, filled?: Promise<unknown>): Promise<SharedInputs> {
    const share = await this.#begin(() => shareCall(input), { input, output: input }, filled);
    return this.#held.hold(share!);
  }

  window(byteLength: number): SharedWindow {
    return privateWindow(byteLength);
  }

  barrier(): Work {
    return this.#start(() => BARRIER_CALL, NOTHING);
  }

  async split(color: number, key: number): Promise<Collective> {
    const sequence = this.#sequence;
    const output = new Float64Array(SPLIT_FIELDS * this.size);
    const work = this.#start(
      () => {
        checkSplit(color, key);
        return SPLIT_CALL;
      },
      { input: Float64Array.of(color, key, 0), output },
    );
    await work.wait();
    const { members, rank } = splitPlace(output, this.rank);
    const subgroup = this.group.subgroup(sequence, color, members.length).collectives[rank]!;
    this.#subgroups.push(subgroup);
    return subgroup;
  }

  abort(reason: string): void {
    this.group.fail(new CollectiveError(`collective aborted by rank ${this.rank}: ${reason}`, this.rank));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#last.catch(() => {});
    this.#held.releaseAll();
    await Promise.all(this.#subgroups.map((subgroup) => subgroup.close()));
    this.group.leave(
      new CollectiveError(`rank ${this.rank} left the group: no call can complete without it`, this.rank),
    );
  }

  /** A call that is wrong in itself fails the group too, lest the other ranks wait for it. */
  #start(describe: () => Call, operands: Operands): Work {
    const done = this.#begin(describe, operands);
    return {
      wait: async () => {
        await done;
      },
    };
  }

  /** As `#start`; the operands are complete when `filled` resolves. */
  #begin(
    describe: () => Call,
    operands: Operands,
    filled?: Promise<unknown>,
  ): Promise<OpenShare | undefined> {
    if (this.#closed) throw new StateError("collective is closed: no call may follow close");
    let call: Call;
    try {
      call = describe();
    } catch (error) {
      this.abort(error instanceof Error ? error.message : String(error));
      throw error;
    }
    const sequence = this.#sequence++;
    const post = (): Promise<OpenShare | undefined> => this.group.call(this.rank, sequence, call, operands);
    const unfilled = (reason: unknown): never => {
      this.abort(reason instanceof Error ? reason.message : String(reason));
      throw reason;
    };
    const done = filled === undefined ? post() : handled(filled.then(post, unfilled));
    this.#last = done;
    return done;
  }
}

const NOTHING: Operands = { input: new Uint8Array(0), output: new Uint8Array(0) };

/** A failed operation that nobody awaits must not end the process. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

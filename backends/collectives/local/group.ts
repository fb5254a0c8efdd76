/**
 * N ranks in one event loop. The last rank to call an operation performs it for all; results are those of any other
 * transport, which makes this one the oracle, and the way to run worlds larger than the machine.
 *
 * @module
 */
import type { Collective, SharedInputs, SharedWindow } from "../../../core/contracts/collective.ts";
import { CollectiveError, ConfigError } from "../../../core/contracts/errors.ts";
import { type Call, mismatch } from "../calls.ts";
import { HeldShares, type OpenShare, privateWindow, ShareLedger } from "../held-shares.ts";
import { NOTHING, OrderedCollective, type Posting, type SplitResult } from "../ordered.ts";
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

/** One rank's view of a group. What a share gives to every rank is the result of its operation. */
class LocalCollective extends OrderedCollective<OpenShare | undefined> {
  readonly name = "local";
  readonly group: LocalGroup;
  readonly #held: HeldShares = new HeldShares();

  constructor(group: LocalGroup, rank: number) {
    super(rank, group.size);
    this.group = group;
  }

  protected override perform(
    { call, input = NOTHING, output, sequence }: Posting,
    filled: Promise<unknown> | undefined,
  ): Promise<OpenShare | undefined> {
    const post = (): Promise<OpenShare | undefined> =>
      this.group.call(this.rank, sequence, call, { input, output });
    return filled === undefined ? post() : filled.then(post, (reason) => this.failWith(reason));
  }

  protected override async hold(called: Promise<OpenShare | undefined>): Promise<SharedInputs> {
    const share = await called;
    return this.#held.hold(share!);
  }

  protected override releaseShares(): void {
    this.#held.releaseAll();
  }

  protected override reserve(): number {
    return 0;
  }

  protected override subgroup({ sequence, color, members, rank }: SplitResult): Collective {
    return this.group.subgroup(sequence, color, members.length).collectives[rank]!;
  }

  protected override leave(): void {
    this.group.leave(
      new CollectiveError(`rank ${this.rank} left the group: no call can complete without it`, this.rank),
    );
  }

  override window(byteLength: number): SharedWindow {
    return privateWindow(byteLength);
  }

  override abort(reason: string): void {
    this.group.fail(new CollectiveError(`collective aborted by rank ${this.rank}: ${reason}`, this.rank));
  }
}

/** A failed operation that nobody awaits must not end the process. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

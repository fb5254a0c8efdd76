/**
 * Collectives of ranks that share memory. An operation is posted when it is called: its descriptor says what was called
 * and where the input is. Once all ranks have posted it, each reads what it needs straight from its peers, writes only
 * its own output, and counts itself done; inputs are reusable when all are. Operations of a group run in order, in the
 * background of whatever the rank awaits, so ranks may await them in any order.
 *
 * Large allReduce: every rank reduces its own slice in place, then copies the others' slices. Small ones spare that
 * stage: every rank reduces everything.
 *
 * @module
 */
import type { Collective, SharedInputs, SharedWindow } from "../../../core/contracts/collective.ts";
import { type HostArray, newHostArray } from "../../../core/contracts/dtype.ts";
import { CollectiveError } from "../../../core/contracts/errors.ts";
import { mismatch } from "../calls.ts";
import { copyBytes, windowOf } from "../elements.ts";
import { OrderedCollective, type Posting, type SplitResult } from "../ordered.ts";
import { reduceInto } from "../reduce.ts";
import { singleCollective } from "../single.ts";
import { GroupBlock, type Stage } from "./group-block.ts";
import { type Exposed, peerArray } from "./memories.ts";
import type { RankWorld } from "./rank-world.ts";
import { RankShares } from "./shares.ts";

/** From this many elements, summed over the ranks, an allReduce goes by slices. */
const SLICED_ALL_REDUCE = 16384;

/** The group of all ranks, whose block the launcher allocated at `offset`. */
export function threadsCollective(world: RankWorld, offset: number): Collective {
  return groupOf(
    world,
    offset,
    Array.from({ length: world.size }, (_, rank) => rank),
  );
}

function groupOf(world: RankWorld, offset: number, members: readonly number[]): Collective {
  if (members.length === 1) return singleCollective("threads");
  return new ThreadsCollective(world, new GroupBlock(world.control, offset, members.length), members);
}

/** One operation of this rank. */
interface Operation extends Posting {
  /** What peers read of this rank. */
  exposed: Exposed | undefined;
  /** What a share gives: every rank's input. */
  shared: readonly HostArray[] | undefined;
}

class ThreadsCollective extends OrderedCollective<Operation> {
  readonly name = "threads";
  readonly #world: RankWorld;
  readonly #block: GroupBlock;
  /** World ranks of the group, in its order. */
  readonly #members: readonly number[];
  readonly #shares: RankShares;
  /** Number of operations that went by slices: that stage has a count of its own. */
  #sliced = 0;
  /** Operations that wait for a free slot. */
  #unposted = 0;
  /** Resolves when the last operation has read its peers. */
  #read: Promise<void> = Promise.resolve();
  #failure: Error | undefined;

  constructor(world: RankWorld, block: GroupBlock, members: readonly number[]) {
    super(members.indexOf(world.rank), members.length);
    this.#world = world;
    this.#block = block;
    this.#members = members;
    this.#shares = new RankShares(block, this.rank, {
      until: (ready) => this.#await(ready),
      wake: () => this.#ringAll(),
    });
  }

  override window(byteLength: number): SharedWindow {
    return this.#world.exposer.window(byteLength);
  }

  override abort(reason: string): void {
    const rank = this.#world.rank;
    this.#block.fail({ rank, text: `collective aborted by rank ${this.rank}: ${reason}` });
    this.#ringAll();
  }

  protected override async hold(called: Promise<Operation>): Promise<SharedInputs> {
    const turn = this.#shares.begin();
    const { shared, exposed } = await called;
    return this.#shares.hold(turn, shared!, exposed);
  }

  protected override releaseShares(): void {
    this.#shares.releaseAll();
  }

  protected override reserve(): number {
    return GroupBlock.allocateForSplit(this.#world.control, this.size);
  }

  protected override subgroup({ members, sizesBefore, reserved }: SplitResult): Collective {
    const offset = GroupBlock.offsetAfter(reserved, sizesBefore);
    return groupOf(
      this.#world,
      offset,
      members.map((member) => this.#members[member]!),
    );
  }

  protected override leave(): void {
    this.#block.leave(this.rank);
    this.#ringAll();
  }

  protected override async perform(
    posting: Posting,
    filled: Promise<unknown> | undefined,
  ): Promise<Operation> {
    const operation: Operation = { ...posting, exposed: undefined, shared: undefined };
    const before = this.#read;
    const read = Promise.withResolvers<void>();
    this.#read = read.promise;
    try {
      // The order of operations has its place for this one; it is posted when its input is complete.
      if (filled) await filled.catch((reason) => this.failWith(reason));
      await this.#post(operation, before);
      await before;
      if (this.#failure) throw this.#failure;
      await this.#until("posted", operation.sequence);
      this.#compare(operation.sequence);
      const finish = await this.#transfer(operation);
      this.#arrive("done", operation.sequence);
      read.resolve();
      // Others read a share for longer than it takes them to be done with the call.
      if (operation.shared) return operation;
      if (operation.exposed || finish) await this.#until("done", operation.sequence);
      finish?.();
      return operation;
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      read.resolve();
      if (!operation.shared) operation.exposed?.release();
    }
  }

  /** Posts at once when a slot is free, so that peers need not wait for this thread's next turn. */
  async #post(operation: Operation, before: Promise<void>): Promise<void> {
    this.#check();
    if (this.#unposted > 0 || !this.#block.free(operation.sequence)) {
      this.#unposted++;
      await before;
      await this.#await(() => this.#block.free(operation.sequence));
      this.#unposted--;
    }
    const { call, input, sequence } = operation;
    if (input && input.length > 0) operation.exposed = this.#world.exposer.expose(input, call.dtype);
    this.#block.describe(sequence, this.rank, call, operation.exposed);
    this.#arrive("posted", sequence);
  }

  /** Reads what this rank needs. Returns what is left to do when no peer reads this rank's input any more. */
  async #transfer(operation: Operation): Promise<(() => void) | undefined> {
    const { call, output } = operation;
    const { name, dtype, length } = call;
    if (name === "share") operation.shared = this.#peers(operation, 0, length);
    if (length === 0) return undefined;
    if (name === "allGather" || name === "split") {
      for (let peer = 0; peer < this.size; peer++) {
        const target = windowOf(output, dtype, peer * length, length);
        copyBytes(target, this.#peer(operation, peer, 0, length));
      }
    } else if (name === "reduceScatter") {
      const share = length / this.size;
      reduceInto(output, this.#peers(operation, this.rank * share, share), call.op!, dtype);
    } else if (name === "allReduce") {
      if (length * this.size < SLICED_ALL_REDUCE) {
        const result = newHostArray(dtype, length);
        reduceInto(result, this.#peers(operation, 0, length), call.op!, dtype);
        return () => copyBytes(output, result);
      }
      const { begin, end } = sliceOf(length, this.size, this.rank);
      const own = windowOf(operation.exposed!.view, dtype, begin, end - begin);
      reduceInto(own, this.#peers(operation, begin, end - begin), call.op!, dtype);
      const turn = this.#sliced++;
      this.#arrive("reduced", turn);
      await this.#until("reduced", turn);
      for (let peer = 0; peer < this.size; peer++) {
        const slice = sliceOf(length, this.size, peer);
        const count = slice.end - slice.begin;
        const target = windowOf(output, dtype, slice.begin, count);
        copyBytes(target, this.#peer(operation, peer, slice.begin, count));
      }
    } else if (name === "broadcast" && this.rank !== call.root) {
      copyBytes(output, this.#peer(operation, call.root!, 0, length));
    }
    return undefined;
  }

  /** A window of a peer's input; this rank's own is its array itself, unless that is what a staged copy replaces. */
  #peer(operation: Operation, peer: number, begin: number, length: number): HostArray {
    const { call, sequence } = operation;
    if (length === 0) return newHostArray(call.dtype, 0);
    if (peer === this.rank) {
      const own = call.name === "allReduce" ? operation.exposed!.view : operation.input!;
      return windowOf(own, call.dtype, begin, length);
    }
    const place = this.#block.place(sequence, peer);
    return peerArray(this.#world.memories[this.#members[peer]!]!, place, call.dtype, begin, length);
  }

  #peers(operation: Operation, begin: number, length: number): HostArray[] {
    return this.#members.map((_, peer) => this.#peer(operation, peer, begin, length));
  }

  #arrive(stage: Stage, sequence: number): void {
    if (!this.#block.arrive(stage, sequence)) return;
    for (const member of this.#members) if (member !== this.#world.rank) this.#world.control.ring(member);
  }

  #until(stage: Stage, sequence: number): Promise<void> {
    // Who has posted an operation leaves no earlier than it is done.
    return this.#await(() => this.#block.all(stage, sequence), stage === "posted" ? sequence : undefined);
  }

  /** Resolves when `ready()` is true; rejects with what `#check(sequence)` throws meanwhile. */
  #await(ready: () => boolean, sequence?: number): Promise<void> {
    return this.#world.doorbell.until(() => {
      if (ready()) return true;
      this.#check(sequence);
      return false;
    });
  }

  /** @throws CollectiveError when the job or the group has failed, or a rank left that has not posted `sequence`. */
  #check(sequence?: number): void {
    this.#world.check();
    if (this.#failure) throw this.#failure;
    // In this order: a rank that failed said so before it left.
    const missing = sequence === undefined ? undefined : this.#block.missing(sequence);
    const fault = this.#block.fault();
    if (fault) throw new CollectiveError(fault.text, fault.rank < 0 ? undefined : fault.rank);
    if (missing === undefined) return;
    throw new CollectiveError(`rank ${missing} left the group: no call can complete without it`, missing);
  }

  #compare(sequence: number): void {
    const calls = this.#members.map((_, rank) => this.#block.call(sequence, rank));
    const error = mismatch(sequence, calls);
    if (error) throw error;
  }

  /** One failed operation fails all later ones, on all ranks. */
  #fail(error: unknown): void {
    if (this.#failure) return;
    this.#failure = error instanceof Error ? error : new CollectiveError(String(error));
    const rank = error instanceof CollectiveError ? (error.rank ?? -1) : this.#world.rank;
    this.#block.fail({ rank, text: this.#failure.message });
    this.#ringAll();
  }

  #ringAll(): void {
    for (const member of this.#members) this.#world.control.ring(member);
  }
}

/** The part of `length` elements that `rank` reduces. */
function sliceOf(length: number, size: number, rank: number): { begin: number; end: number } {
  return { begin: Math.floor((length * rank) / size), end: Math.floor((length * (rank + 1)) / size) };
}

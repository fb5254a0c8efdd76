import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../../checkpoint/stores/directory.ts";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import type { Checkpointer } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { FAULTS, startFaultProxy } from "../../support/fault-proxy.ts";
import { seeded } from "../../support/random.ts";
import { runRanks, settleRanks } from "../ranks.ts";
import { makeFolder, spawnService } from "../server/service.ts";
import { cutBox, dimZero, emptyState, type FullTensor, patternTensor, shardedState } from "../states.ts";

const SAVES = 200;
const SAVES_PER_RUN = 25;
const RANKS = 2;
/** Of requests. */
const FAULTY = 0.2;
/** Of saves, in the middle of which the service is killed. */
const KILLED = 0.15;
/** Longest life of a service that is to be killed, in milliseconds from the begin of the save. */
const LIFE = 80;
/** Longest that a request is held back. */
const HOLD = 40;
/** Waits of almost nothing between attempts, and files in several appends. */
const CLIENT = { retryForMs: 10_000, timeoutMs: 3000, random: () => -0.49, partBytes: 400 };

const { folder, remove } = makeFolder();
afterAll(remove);

/** A tensor that differs from step to step, and one that does not. */
function tensorsOf(step: number): readonly FullTensor[] {
  const frozen = { ...patternTensor("model.frozen", "float32", [9, 3]), constant: true };
  return [{ ...patternTensor(`step ${step}`, "float32", [5, 7]), name: "model.w" }, frozen];
}

/** Whether a checkpoint loads, over another number of ranks, to just what was saved. */
async function isRight(checkpointer: Checkpointer, step: number): Promise<boolean> {
  const right = await runRanks(RANKS + 1, async (collective) => {
    const { state, filled } = emptyState(tensorsOf(step), dimZero(RANKS + 1), collective.rank);
    const { values } = await checkpointer.load(state, nameOf(step), collective);
    const same = filled.every(({ tensor, box, bytes }) => Buffer.compare(cutBox(tensor, box), bytes) === 0);
    return same && values.step === step;
  });
  return right.every(Boolean);
}

const nameOf = (step: number): string => `step-${String(step).padStart(8, "0")}`;

test(`of ${SAVES} saves through a bad network to a service that is killed, none that is committed is lost or wrong, and no other is listed`, async () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  console.log(`network faults: seed ${seed}`);
  const choices = seeded(seed);
  const data = join(folder, "data");
  let service = await spawnService("bun", data);
  const proxy = await startFaultProxy({
    target: service.url,
    fault: () => (choices.chance(FAULTY) ? choices.pick(FAULTS) : "none"),
    hold: () => choices.below(HOLD),
  });
  /** By run: the steps whose save was told to be committed, and those that were ever seen. */
  const told = new Map<string, Set<number>>();
  const seen = new Map<string, Set<number>>();
  let kills = 0;
  let failures = 0;
  try {
    for (let step = 1; step <= SAVES; step++) {
      const run = `run-${Math.floor(step / SAVES_PER_RUN)}`;
      const toldHere = told.get(run) ?? new Set();
      const seenHere = seen.get(run) ?? new Set();
      told.set(run, toldHere);
      seen.set(run, seenHere);
      const checkpointer = nativeCheckpointer(httpStore(`${proxy.url}/runs/${run}`, CLIENT));
      const saving = settleRanks(RANKS, (collective) => {
        const state = shardedState(tensorsOf(step), dimZero(RANKS), collective.rank, { step });
        return checkpointer.save(state, step, collective);
      });
      if (choices.chance(KILLED)) {
        await sleep(choices.below(LIFE));
        service.child?.kill("SIGKILL");
        await service.child?.exited;
        kills++;
        service = await spawnService("bun", data);
        proxy.target = service.url;
      } else await sleep(choices.below(LIFE / 4));
      // While the save may still go on, past the proxy.
      const direct = nativeCheckpointer(httpStore(`${service.url}/runs/${run}`, CLIENT));
      const check = async (): Promise<void> => {
        const steps = (await direct.list()).map((info) => info.step);
        for (const one of [...toldHere, ...seenHere]) expect(steps).toContain(one);
        for (const one of steps.filter((found) => !seenHere.has(found))) {
          expect({ one, right: await isRight(direct, one) }).toEqual({ one, right: true });
          seenHere.add(one);
        }
      };
      await check();
      const [first, ...others] = await saving;
      for (const other of others) expect(other.status).toBe(first!.status);
      if (first?.status === "fulfilled") toldHere.add(step);
      else {
        expect(first?.reason).toBeInstanceOf(CheckpointError);
        failures++;
      }
      await check();
    }
    // What is late may come after all.
    await proxy.close();
    for (const [run, steps] of seen) {
      const direct = nativeCheckpointer(httpStore(`${service.url}/runs/${run}`, CLIENT));
      const listed = (await direct.list()).map((info) => info.step);
      expect(listed).toEqual(expect.arrayContaining([...steps]));
      await service.close();
      // What the service leaves is a directory like any other.
      const plain = nativeCheckpointer(directoryStore(join(data, run)));
      expect((await plain.list()).map((info) => info.step)).toEqual(listed);
      for (const step of listed) {
        expect(await plain.verify(nameOf(step))).toEqual([]);
        expect({ step, right: await isRight(plain, step) }).toEqual({ step, right: true });
      }
      service = await spawnService("bun", data);
    }
  } finally {
    await service.close();
  }
  const committed = [...told.values()].reduce((sum, steps) => sum + steps.size, 0);
  const met = [...proxy.counts].map(([fault, count]) => `${fault} ${count}`).join(", ");
  console.log(
    `network faults: ${committed} of ${SAVES} committed, ${failures} refused, ${kills} kills; ${met}`,
  );
  // The trial was one: faults and kills happened, and most saves came through.
  expect(committed).toBeGreaterThan(SAVES / 2);
  expect([...proxy.counts.keys()].sort()).toEqual([...FAULTS].sort());
  expect(kills).toBeGreaterThan(0);
}, 180_000);

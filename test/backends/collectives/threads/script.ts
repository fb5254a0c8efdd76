/**
 * A program that runs jobs on threads and says what came of them, for each runtime to run.
 *
 * @module
 */
import { threadsTransport } from "../../../../backends/collectives/threads/transport.ts";
import type { RankJob } from "../../../../core/contracts/transport.ts";
import type { SequenceReport } from "../../../conformance/collective/programs.ts";
import type { BadEnd } from "./programs.ts";

const module = new URL("../../../conformance/collective/programs.ts", import.meta.url).href;
const sharePrograms = new URL("../../../conformance/collective/share-programs.ts", import.meta.url).href;
const badEnds = new URL("./programs.ts", import.meta.url).href;
const launch = (name: string, args: unknown = {}, onMessage = (): void => {}): RankJob =>
  threadsTransport.launch({ module, export: name, args }, { worldSize: 4, onMessage });

const every = { dtypes: ["float32", "bfloat16", "float16", "int64"], ops: ["sum"], lengths: [0, 5, 4500] };
const reports = (await launch("everyOperation", every).results) as readonly SequenceReport[];
const sharing = { module: sharePrograms, export: "manyShares", args: { count: 40 } };
const shares = await threadsTransport.launch(sharing, { worldSize: 4 }).results;
const mesh = await launch("meshReduction").results;
const failure = await errorOf(launch("failingRank", { computes: true }));
const waiting = Promise.withResolvers<void>();
const forEver = launch("waitForEver", {}, waiting.resolve);
await waiting.promise;
await forEver.kill();
const killed = await errorOf(forEver);
const badEnd = (how: BadEnd): RankJob =>
  threadsTransport.launch({ module: badEnds, export: "badEnd", args: { how } }, { worldSize: 2 });

const remote = { module: badEnds, export: "remoteSteps", args: {} };
const steps = (await threadsTransport.launch(remote, { worldSize: 2 }).results) as readonly {
  readonly sums: readonly number[];
}[];

console.log(
  JSON.stringify({
    problems: reports.flatMap((report) => report.problems),
    agree: new Set(reports.map((report) => report.common)).size === 1,
    shares,
    remote: steps.map(({ sums }) => sums.at(-1)),
    mesh,
    failure,
    killed: killed[0],
    rejection: await errorOf(badEnd("rejection")),
    exception: await errorOf(badEnd("exception")),
  }),
);

async function errorOf(job: RankJob): Promise<readonly string[]> {
  try {
    await job.results;
    return [];
  } catch (error) {
    return error instanceof Error ? [error.name, error.message] : [String(error)];
  }
}

/**
 * Plans of reads: for clients that fetch ranges of the ranks' files and put boxes together themselves.
 *
 * @module
 */
import { planReads } from "../read-plan.ts";
import { json, type Route, route } from "./route.ts";
import { noQuery, planAnswer, planBody } from "./schemas.ts";

/** What a read may bring beside what is wanted, where the request does not say: as much again. */
const OVER_READ = 1;

/** Routes of plans. */
export const planRoutes: readonly Route[] = [
  route({
    method: "POST",
    path: "/v1/runs/{run}/checkpoints/{checkpoint}/plan",
    operation: "planReads",
    tag: "tensors",
    summary:
      "Which byte ranges of which files hold some boxes of tensors, and where each run of them goes. A part is `length` " +
      "bytes from `source` in the file to `target` in the box (row-major), and on axis d `counts[d]` times further by " +
      "`sourceStrides[d]` and `targetStrides[d]`. `crc32` are those of the blocks that a range lies in.",
    scopes: ["read"],
    query: noQuery,
    body: planBody,
    answers: { 200: { description: "The plan", schema: planAnswer } },
    async handle({ service, params, body }): Promise<Response> {
      const run = await service.run(params.run);
      const { manifest, sha256 } = await service.manifests.open(run, params.checkpoint);
      const plan = planReads(manifest, body.tensors, body.maxOverRead ?? OVER_READ);
      return json({ manifest: sha256, ...plan });
    },
  }),
];

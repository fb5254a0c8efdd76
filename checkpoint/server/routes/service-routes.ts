/**
 * The service itself: health, its description, the runs, and what happens in them.
 *
 * @module
 */
import { verifyCheckpoint } from "../../verify.ts";
import { eventStream } from "../event-stream.ts";
import { openApiDocument } from "../openapi.ts";
import { Problem } from "../problem.ts";
import { json, type Route, route } from "./route.ts";
import { jobAnswer, noQuery } from "./schemas.ts";

/** Routes that describe all `routes`, and themselves. */
export function serviceRoutes(routes: () => readonly Route[]): readonly Route[] {
  return [
    route({
      method: "GET",
      path: "/healthz",
      operation: "health",
      tag: "service",
      summary: "Answers while the service runs.",
      scopes: [],
      query: noQuery,
      answers: { 200: { description: "It runs" } },
      handle: async () => json({ status: "ok" }),
    }),
    route({
      method: "GET",
      path: "/v1/openapi.json",
      operation: "openapi",
      tag: "service",
      summary: "This API as an OpenAPI 3.1 document.",
      scopes: [],
      query: noQuery,
      answers: { 200: { description: "The document" } },
      handle: async ({ mount }) => json(openApiDocument(routes(), mount)),
    }),
    route({
      method: "GET",
      path: "/v1/runs",
      operation: "listRuns",
      tag: "service",
      summary: "Names of the runs that the token sees.",
      scopes: ["read"],
      query: noQuery,
      answers: { 200: { description: "The names" } },
      async handle({ service, principal }): Promise<Response> {
        return json({ runs: (await service.runNames()).filter((name) => principal.sees(name)) });
      },
    }),
    route({
      method: "GET",
      path: "/v1/runs/{run}/events",
      operation: "events",
      tag: "service",
      summary: "What happens in a run, as server-sent events; Last-Event-ID replays what was missed.",
      scopes: ["read"],
      query: noQuery,
      headers: ["Last-Event-ID"],
      answers: { 200: { description: "Events", type: "text/event-stream" } },
      async handle({ service, request, params }): Promise<Response> {
        const run = await service.run(params.run);
        return eventStream(run.events, request, service.streams);
      },
    }),
    route({
      method: "POST",
      path: "/v1/runs/{run}/checkpoints/{checkpoint}/verify",
      operation: "verifyCheckpoint",
      tag: "checkpoints",
      summary:
        "Reads every byte of a checkpoint and compares it with its digests; Location tells what came of it.",
      scopes: ["read"],
      query: noQuery,
      answers: { 202: { description: "Started", schema: jobAnswer, headers: ["Location"] } },
      async handle({ service, params, mount }): Promise<Response> {
        const run = await service.run(params.run);
        const name = params.checkpoint;
        await service.manifests.summary(run, name);
        const job = service.jobs.start(`${run.name}/${name}`, service.now(), async () => {
          const faults = await verifyCheckpoint(run.store, name);
          run.events.publish("checkpoint-verified", { name, faults: faults.length });
          // What the store says of a file may hold its path here.
          return faults.map(({ file, problem }) => ({
            file,
            problem: problem.replaceAll(run.root, run.name),
          }));
        });
        return json({ id: job.id, state: job.state }, 202, {
          location: `${mount}/v1/runs/${run.name}/checkpoints/${name}/verify/${job.id}`,
        });
      },
    }),
    route({
      method: "GET",
      path: "/v1/runs/{run}/checkpoints/{checkpoint}/verify/{job}",
      operation: "getVerification",
      tag: "checkpoints",
      summary: "How a verification stands, and the faults that it found.",
      scopes: ["read"],
      query: noQuery,
      answers: { 200: { description: "Its state", schema: jobAnswer } },
      async handle({ service, params }): Promise<Response> {
        const job = service.jobs.find(`${params.run}/${params.checkpoint}`, params.job);
        if (job === undefined) throw new Problem("not-found", "there is no such verification");
        return json({ id: job.id, state: job.state, faults: job.result });
      },
    }),
  ];
}

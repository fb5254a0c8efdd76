/**
 * The checkpoint service as a Hono app, to be served by itself (`serve`) or mounted in an app of the user's. Everything
 * that a request can be refused for is checked here, in one order, from what its route declares.
 *
 * @module
 */
import { type Context, Hono } from "hono";
import { routePath } from "hono/route";
import * as v from "valibot";
import { errorCode } from "../stores/directory-errors.ts";
import { authenticator, type Principal } from "./auth.ts";
import { readWhole } from "./body.ts";
import { checkLocal, checkSize, createRateLimit } from "./guard.ts";
import { pageRoot, pageRoutes } from "./page/page-routes.ts";
import { Problem, problemResponse } from "./problem.ts";
import { blobRoutes } from "./routes/blob-routes.ts";
import { checkpointRoutes } from "./routes/checkpoint-routes.ts";
import { exportRoutes } from "./routes/export-routes.ts";
import { fileRoutes } from "./routes/file-routes.ts";
import { planRoutes } from "./routes/plan-routes.ts";
import { PARAMS, type ParamName, type Route, type RouteInput } from "./routes/route.ts";
import { saveRoutes } from "./routes/save-routes.ts";
import { serviceRoutes } from "./routes/service-routes.ts";
import { tensorRoutes } from "./routes/tensor-routes.ts";
import { uploadRoutes } from "./routes/upload-routes.ts";
import { type CheckpointAppOptions, openService, type Service } from "./service.ts";

/** Every route of the API; the page has its own. */
export const ROUTES: readonly Route[] = [
  ...serviceRoutes(() => ROUTES),
  ...saveRoutes,
  ...uploadRoutes,
  ...fileRoutes,
  ...blobRoutes,
  ...checkpointRoutes,
  ...tensorRoutes,
  ...planRoutes,
  ...exportRoutes,
];

/**
 * The service over a directory. The bodies of its requests are its own: it frees their chunks as it reads them.
 *
 * @example
 * const app = createCheckpointApp({ directory: "checkpoints", tokens: await readTokenFile("tokens.json") });
 * Bun.serve({ fetch: app.fetch, maxRequestBodySize: 2 ** 40, idleTimeout: 255 });
 *
 * @throws nothing: a directory that cannot be used shows when it is.
 */
export function createCheckpointApp(options: CheckpointAppOptions): Hono {
  const service = openService(options);
  const { limits, now } = service;
  const tokens = options.tokens ?? [];
  const authenticate = authenticator(tokens, now);
  const limitRate = createRateLimit(limits, now);
  const onError = options.onError ?? (() => undefined);
  let running = 0;

  const answer = async (context: Context, route: Route | undefined): Promise<Response> => {
    const request = context.req.raw;
    const started = performance.now();
    let principal = "-";
    let response: Response;
    running++;
    try {
      if (running > limits.requests) {
        throw new Problem("busy", `${limits.requests} requests are being answered, which is the most`, {
          headers: { "retry-after": "1" },
        });
      }
      checkSize(request, limits);
      if (tokens.length === 0 && options.trustRequests !== true) checkLocal(request);
      const isPublic = route !== undefined && route.scopes.length === 0;
      const asker = isPublic ? undefined : authenticate(request);
      principal = asker?.name ?? "-";
      limitRate(principal);
      if (route === undefined) throw unrouted(context);
      await service.sweep();
      response = await handle(service, context, route, asker);
    } catch (error) {
      const problem = problemOf(error);
      if (problem.type === "internal") onError(error);
      response = problemResponse(problem);
    } finally {
      running--;
    }
    options.onRequest?.({
      method: request.method,
      path: new URL(request.url).pathname,
      status: response.status,
      milliseconds: performance.now() - started,
      principal,
    });
    return response;
  };

  const app = new Hono();
  for (const route of [...ROUTES, ...pageRoutes]) {
    app.on(route.method, route.path.replaceAll(/\{([a-z0-9]+)\}/g, ":$1"), (context) =>
      answer(context, route),
    );
  }
  // Mounted, the root may come with a final slash, which matches no route's path.
  app.all("*", (context) => {
    const isRoot = routePath(context) === `${context.req.path}*` && context.req.method === "GET";
    return answer(context, isRoot ? pageRoot : undefined);
  });
  return app;
}

async function handle(
  service: Service,
  context: Context,
  route: Route,
  principal: Principal | undefined,
): Promise<Response> {
  const request = context.req.raw;
  const params: Partial<Record<ParamName, string>> = {};
  for (const [, name = ""] of route.path.matchAll(/\{([a-z0-9]+)\}/g)) {
    const known = name as ParamName;
    const result = v.safeParse(PARAMS[known], context.req.param(known));
    if (!result.success) throw new Problem("malformed", `${known} in the URL: ${result.issues[0].message}`);
    params[known] = result.output;
  }
  if (principal !== undefined) {
    // Whose run it is not is not told that it is there.
    if (params.run !== undefined && !principal.sees(params.run)) {
      throw new Problem("not-found", `there is no run ${params.run}`);
    }
    const extra = request.method === "HEAD" ? (route.headScopes ?? []) : [];
    if (!principal.allows([...route.scopes, ...extra])) {
      throw new Problem("insufficient-scope", `one of these scopes is needed: ${route.scopes.join(", ")}`, {
        headers: { "www-authenticate": 'Bearer realm="fsdp", error="insufficient_scope"' },
      });
    }
  }
  const input = {
    ...{ service, request, params, principal },
    query: queryOf(request, route),
    body: await bodyOf(service, request, route),
    mount: mountOf(request, route),
  };
  return route.handle(input as RouteInput<ParamName, unknown, unknown>);
}

/** The checked query. @throws Problem when a name is unknown, comes twice or has a bad value. */
function queryOf(request: Request, route: Route): unknown {
  const given = new URL(request.url).searchParams;
  const names = [...given.keys()];
  if (new Set(names).size < names.length) throw new Problem("malformed", "query: a name comes twice");
  const result = v.safeParse(route.query, Object.fromEntries(given), { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new Problem("malformed", `query ${v.getDotPath(issue) ?? ""}: ${issue.message}`);
}

/** The checked JSON body, or `undefined` where the handler reads it. @throws Problem. */
async function bodyOf(service: Service, request: Request, route: Route): Promise<unknown> {
  const type = (request.headers.get("content-type") ?? "").split(";")[0]!.trim().toLowerCase();
  if (route.content !== undefined) {
    if (route.content.includes(type)) return undefined;
    throw new Problem("media-type", `content-type: allowed is ${route.content.join(", ")}`);
  }
  if (route.body === undefined) return undefined;
  const { jsonBytes: limit, idleSeconds } = service.limits;
  const bytes = await readWhole(request, { limit, idleSeconds });
  let value: unknown = {};
  if (bytes.length > 0 || route.bodyOptional !== true) {
    if (type !== "application/json")
      throw new Problem("media-type", "content-type: allowed is application/json");
    try {
      value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch (error) {
      throw new Problem("malformed", "the body is not JSON", { cause: error });
    }
  }
  const result = v.safeParse(route.body, value, { abortEarly: false });
  if (result.success) return result.output;
  // Paths and rules only: what was given may be secret, and is large where it matters.
  const issues = result.issues.slice(0, 20).map((issue) => ({
    field: v.getDotPath(issue) ?? "",
    allowed: issue.expected ?? issue.message,
  }));
  const [first] = issues;
  throw new Problem("invalid", `${first?.field || "body"}: allowed is ${first?.allowed}`, {
    fields: { issues },
  });
}

/** The path before the route's own. */
function mountOf(request: Request, route: Route): string {
  const segments = new URL(request.url).pathname.split("/");
  return segments.slice(0, segments.length - route.path.split("/").length + 1).join("/");
}

function unrouted(context: Context): Problem {
  const path = new URL(context.req.url).pathname;
  const methods = ROUTES.filter((route) => {
    const pattern = route.path.replaceAll(".", "\\.").replaceAll(/\{[a-z0-9]+\}/g, "[^/]+");
    return new RegExp(`${pattern}$`).test(path);
  }).map(({ method }) => method);
  if (methods.length === 0) return new Problem("not-found", "there is nothing at this path");
  const allow = [...new Set(methods.includes("GET") ? [...methods, "HEAD"] : methods)].join(", ");
  return new Problem("method-not-allowed", `allowed are ${allow}`, { headers: { allow } });
}

function problemOf(error: unknown): Problem {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof Problem) return cause;
    const code = errorCode(cause);
    if (code === "ENOSPC" || code === "EDQUOT") return new Problem("storage", "the disk is full");
  }
  return new Problem("internal", "the service met an unexpected error");
}

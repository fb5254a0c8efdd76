/**
 * The API as an OpenAPI 3.1 document, made of the same routes and schemas that requests are checked with.
 *
 * @module
 */
import { toJsonSchema } from "@valibot/to-json-schema";
import type * as v from "valibot";
import { PROBLEMS, problemUri } from "./problem.ts";
import { ANSWER_HEADERS, REQUEST_HEADERS } from "./routes/headers.ts";
import { type Answer, PARAMS, type ParamName, type Route } from "./routes/route.ts";
import { problemAnswer } from "./routes/schemas.ts";

type Json = Readonly<Record<string, unknown>>;

/** The document of some routes, served under `mount`. */
export function openApiDocument(routes: readonly Route[], mount: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const route of routes) {
    const methods = paths[route.path] ?? {};
    paths[route.path] = methods;
    methods[route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "fsdp checkpoint service",
      version: "1",
      description:
        "Sharded checkpoints: resumable uploads, a commit that proves what it commits, ranged reads, streamed exports.",
    },
    servers: [{ url: mount === "" ? "/" : mount }],
    paths,
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
      responses: {
        Problem: {
          description: `A problem (RFC 9457). Types: ${Object.keys(PROBLEMS).join(", ")}; URIs: ${problemUri("malformed")} ...`,
          content: { "application/problem+json": { schema: schemaOf(problemAnswer) } },
        },
      },
    },
  };
}

function operation(route: Route): Json {
  const answers = Object.entries(route.answers).map(
    ([status, answer]) => [status, responseOf(answer)] as const,
  );
  const conditional = route.method === "GET" && route.headers?.includes("If-None-Match") === true;
  return {
    operationId: route.operation,
    tags: [route.tag],
    summary: route.summary,
    security: route.scopes.length === 0 ? [] : [{ token: route.scopes }],
    parameters: [...pathParameters(route), ...queryParameters(route), ...headerParameters(route)],
    ...requestBody(route),
    responses: {
      ...Object.fromEntries(answers),
      ...(conditional ? { 304: responseOf({ description: "Unchanged", headers: ["ETag"] }) } : {}),
      default: { $ref: "#/components/responses/Problem" },
    },
  };
}

function responseOf({ description, schema, type = [], headers = [] }: Answer): Json {
  const types = schema === undefined ? [type].flat() : ["application/json"];
  const media = schema === undefined ? {} : { schema: schemaOf(schema) };
  const fields = headers.map((name) => {
    return [name, { description: ANSWER_HEADERS[name], schema: { type: "string" } }] as const;
  });
  return {
    description,
    ...(types.length === 0 ? {} : { content: Object.fromEntries(types.map((name) => [name, media])) }),
    ...(fields.length === 0 ? {} : { headers: Object.fromEntries(fields) }),
  };
}

function pathParameters({ path }: Route): readonly Json[] {
  return [...path.matchAll(/\{([a-z0-9]+)\}/g)].map(([, name = ""]) => {
    return { name, in: "path", required: true, schema: schemaOf(PARAMS[name as ParamName]) };
  });
}

function queryParameters({ query }: Route): readonly Json[] {
  const { properties = {} } = schemaOf(query) as { readonly properties?: Json };
  return Object.entries(properties).map(([name, schema]) => ({ name, in: "query", required: false, schema }));
}

function headerParameters({ headers = [], neededHeaders = [] }: Route): readonly Json[] {
  return headers.map((name) => {
    return {
      ...{ name, in: "header", required: neededHeaders.includes(name) },
      ...{ description: REQUEST_HEADERS[name], schema: { type: "string" } },
    };
  });
}

function requestBody({ body, bodyOptional, content }: Route): Json {
  if (body !== undefined) {
    const media = { "application/json": { schema: schemaOf(body) } };
    return { requestBody: { required: bodyOptional !== true, content: media } };
  }
  if (content === undefined) return {};
  const media = content.map((type) => [type, { schema: { type: "string", format: "binary" } }] as const);
  return { requestBody: { required: true, content: Object.fromEntries(media) } };
}

/** What JSON Schema cannot say (our own checks) is left out. */
function schemaOf(schema: v.GenericSchema): Json {
  const { $schema: _, ...rest } = toJsonSchema(schema, {
    target: "draft-2020-12",
    typeMode: "input",
    errorMode: "ignore",
  });
  return rest;
}

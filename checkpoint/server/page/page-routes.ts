/**
 * The page for people: files as they stand in this folder, with nothing from elsewhere and nothing inline. They hold no
 * secret and are served to everybody who may ask at all; what the page then asks for needs a token like any request.
 *
 * @module
 */
import { readFile } from "node:fs/promises";
import { sha256Hex } from "../../digest.ts";
import { isUnchanged } from "../http-fields.ts";
import { empty, type Route, route } from "../routes/route.ts";
import { noQuery } from "../routes/schemas.ts";

const SCRIPT = "text/javascript; charset=utf-8";

/** Files of the page by name, and their media types. */
const ASSETS: Readonly<Record<string, string>> = {
  "style.css": "text/css; charset=utf-8",
  "icon.svg": "image/svg+xml",
  "main.js": SCRIPT,
  "api.js": SCRIPT,
  "checkpoint-view.js": SCRIPT,
  "dom.js": SCRIPT,
  "download.js": SCRIPT,
  "format.js": SCRIPT,
  "layout.js": SCRIPT,
  "live.js": SCRIPT,
  "loss-curve.js": SCRIPT,
  "run-view.js": SCRIPT,
  "runs-view.js": SCRIPT,
  "saves.js": SCRIPT,
  "shard-map.js": SCRIPT,
  "verify.js": SCRIPT,
};

/** Names that come from outside are shown as text, and were one to become markup, nothing of it would run or load. */
const HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-cache",
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** Answers with a text; its entity tag follows from it. */
function answer(request: Request, text: string, type: string): Response {
  const etag = `"${sha256Hex(text).slice(0, 32)}"`;
  if (isUnchanged(request, etag)) return empty(304, { ...HEADERS, etag });
  return new Response(text, { headers: { ...HEADERS, "content-type": type, etag } });
}

function fileText(name: string): Promise<string> {
  return readFile(new URL(name, import.meta.url), "utf8");
}

function asset(name: string, type: string): Route {
  return route({
    method: "GET",
    path: `/page/${name}`,
    operation: `page-${name}`,
    tag: "page",
    summary: "A file of the page.",
    scopes: [],
    query: noQuery,
    answers: { 200: { description: "The file", type } },
    handle: async ({ request }) => answer(request, await fileText(name), type),
  });
}

/** Where the page finds its files, in HTML: the service may be mounted anywhere, with or without a final slash. */
function baseOf(request: Request): string {
  const path = `${new URL(request.url).pathname.replace(/\/$/, "")}/`;
  return path.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
}

/** The page itself. */
export const pageRoot: Route = route({
  method: "GET",
  path: "/",
  operation: "page",
  tag: "page",
  summary: "A page for people: runs, checkpoints and who holds what.",
  scopes: [],
  query: noQuery,
  answers: { 200: { description: "The page", type: "text/html" } },
  async handle({ request }): Promise<Response> {
    const html = await fileText("index.html");
    return answer(request, html.replaceAll("{base}", baseOf(request)), "text/html; charset=utf-8");
  },
});

/** Routes of the page and its files. */
export const pageRoutes: readonly Route[] = [
  pageRoot,
  ...Object.entries(ASSETS).map(([name, type]) => asset(name, type)),
];

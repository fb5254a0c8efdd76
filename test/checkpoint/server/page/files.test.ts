import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Hono } from "hono";
import { createCheckpointApp } from "../../../../checkpoint/server/app.ts";
import { listen } from "../../../../checkpoint/server/listen.ts";
import { apiOf } from "../api.ts";
import { makeFolder, type RunningService, SERVICES, startService } from "../service.ts";

const FOLDER = fileURLToPath(new URL("../../../../checkpoint/server/page/", import.meta.url));
const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  svg: "image/svg+xml",
};
const FILES = readdirSync(FOLDER).filter((name) => (name.split(".").at(-1) ?? "") in TYPES);

describe.each(SERVICES)("the files of the page from %s", (_, start) => {
  let service: RunningService;
  beforeAll(async () => {
    service = await start();
  }, 30_000);
  afterAll(() => service.close());

  test("come with their types, and with a policy that lets nothing inline and nothing from elsewhere run", async () => {
    const api = apiOf(service.url);
    for (const name of FILES) {
      const answer = await api("GET", name === "index.html" ? "/" : `/page/${name}`);
      const type = TYPES[name.split(".").at(-1) ?? ""];
      expect([name, answer.status, answer.headers.get("content-type")]).toEqual([name, 200, type ?? ""]);
      expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
      const policy = answer.headers.get("content-security-policy") ?? "";
      expect(policy).toContain("default-src 'none'");
      expect(policy).not.toMatch(/unsafe|https?:|data:|\*/);
      const etag = answer.headers.get("etag") ?? "";
      const again = await api("GET", name === "index.html" ? "/" : `/page/${name}`, {
        headers: { "if-none-match": etag },
      });
      expect([again.status, again.bytes.length]).toEqual([304, 0]);
    }
    for (const path of [
      "/page/nothing.js",
      "/page/page-routes.ts",
      "/page/..%2fapp.ts",
      "/page/",
      "/index.html",
    ]) {
      expect([path, (await api("GET", path)).status]).toEqual([path, 404]);
    }
  });
});

describe("the files of the page", () => {
  test("name each other and nothing else", async () => {
    for (const name of FILES) {
      const text = await Bun.file(`${FOLDER}${name}`).text();
      expect([
        name,
        text.replaceAll("http://www.w3.org/2000/svg", "").match(/\b(?:https?:)?\/\/[a-z]/g),
      ]).toEqual([name, null]);
      expect([
        name,
        text.match(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\bstyle=|\son[a-z]+=/),
      ]).toEqual([name, null]);
      const named = [...text.matchAll(/(?:from "\.\/|\{base\}page\/)([a-z0-9.-]+)"/g)].map(
        ([, file]) => file ?? "",
      );
      for (const file of named) expect(FILES).toContain(file);
    }
  });

  test("are sound JavaScript by their own types", () => {
    const tsc = fileURLToPath(new URL("../../../../node_modules/typescript/bin/tsc", import.meta.url));
    const { exitCode, stdout } = Bun.spawnSync([process.execPath, tsc, "--noEmit", "-p", FOLDER]);
    expect({ exitCode, said: stdout.toString() }).toEqual({ exitCode: 0, said: "" });
  }, 60_000);

  test("are found wherever the service is mounted, and need no token", async () => {
    const { folder, remove } = makeFolder();
    const root = new Hono();
    root.route("/deep/store", createCheckpointApp({ directory: folder }));
    const listener = await listen((request) => root.fetch(request), { hostname: "127.0.0.1", port: 0 });
    const api = apiOf(listener.url);
    for (const path of ["/deep/store", "/deep/store/"]) {
      const html = new TextDecoder().decode((await api("GET", path)).bytes);
      const [, script = ""] = /src="([^"]+)"/.exec(html) ?? [];
      expect([path, script]).toEqual([path, "/deep/store/page/main.js"]);
      expect((await api("GET", script)).status).toBe(200);
    }
    await listener.close();
    remove();
    const tokens = [{ name: "nobody", sha256: "0".repeat(64), scopes: ["read"] as const }];
    const guarded = await startService({ tokens });
    expect((await apiOf(guarded.url)("GET", "/")).status).toBe(200);
    expect((await apiOf(guarded.url)("GET", "/v1/runs")).status).toBe(401);
    await guarded.close();
  });
});

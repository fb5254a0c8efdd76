import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createCheckpointApp, ROUTES } from "../../../checkpoint/server/app.ts";
import {
  authenticator,
  readTokenFile,
  SCOPES,
  type Scope,
  type TokenRecord,
} from "../../../checkpoint/server/auth.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { run as runCommand } from "../../support/command.ts";
import { sha256 } from "./api.ts";

const folder = mkdtempSync(join(tmpdir(), "fsdp-auth-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const UUID = "00000000-0000-4000-8000-000000000000";
const VALUES: Readonly<Record<string, string>> = {
  run: "team-a",
  checkpoint: "step-00000001",
  file: "x.bin",
  save: UUID,
  upload: UUID,
  job: UUID,
  sha256: "0".repeat(64),
  rank: "0",
  tensor: "w",
};

/** A token of one scope, for runs of a prefix. */
function tokenOf(scope: Scope, prefix?: string): { readonly token: string; readonly record: TokenRecord } {
  const token = `secret-of-${scope}-${prefix ?? "all"}`;
  const digest = sha256(new TextEncoder().encode(token));
  const record = { name: `${scope}-${prefix ?? "all"}`, sha256: digest, scopes: [scope] };
  return { token, record: prefix === undefined ? record : { ...record, run: prefix } };
}

describe("scopes and endpoints", () => {
  const tokens = SCOPES.map((scope) => tokenOf(scope, "team-"));
  const log: string[] = [];
  const app = createCheckpointApp({
    directory: join(folder, "matrix"),
    tokens: tokens.map(({ record }) => record),
    onRequest: (entry) => void log.push(JSON.stringify(entry)),
    onError: (error) => void log.push(String(error)),
  });
  const ask = (method: string, path: string, token?: string): Promise<Response> =>
    Promise.resolve(
      app.fetch(
        new Request(`http://service.example${path}`, {
          method,
          headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        }),
      ),
    );
  const cells = ROUTES.flatMap((route) => {
    const path = route.path.replaceAll(/\{([a-z0-9]+)\}/g, (_, name: string) => VALUES[name]!);
    const methods = route.method === "GET" ? ["GET", "HEAD"] : [route.method];
    return methods.map((method) => ({ route, method, path }));
  });

  test("each scope opens the endpoints that name it, and no other", async () => {
    for (const { route, method, path } of cells) {
      for (const [i, scope] of SCOPES.entries()) {
        const { status } = await ask(method, path, tokens[i]!.token);
        const scopes = [...route.scopes, ...(method === "HEAD" ? (route.headScopes ?? []) : [])];
        const allowed = scopes.length === 0 || scope === "admin" || scopes.includes(scope);
        expect(`${method} ${path} ${scope}: ${status === 403 ? "refused" : "let in"}`).toBe(
          `${method} ${path} ${scope}: ${allowed ? "let in" : "refused"}`,
        );
        expect(status).not.toBe(401);
      }
    }
  });

  test("without a token, or with a wrong one, every endpoint but the public ones asks for one", async () => {
    for (const { route, method, path } of cells) {
      for (const token of [undefined, "wrong", tokens[0]!.record.sha256]) {
        const response = await ask(method, path, token);
        if (route.scopes.length === 0) expect(response.status).toBe(200);
        else {
          expect(response.status).toBe(401);
          expect(response.headers.get("www-authenticate")).toStartWith('Bearer realm="fsdp"');
        }
      }
    }
  });

  test("a run of others is not there, whatever it is asked for; a list does not name it", async () => {
    const admin = tokens.at(-1)!.token;
    for (const { method, path } of cells.filter(({ path }) => path.includes("team-a"))) {
      const response = await ask(method, path.replace("team-a", "other"), admin);
      expect(response.status).toBe(404);
      await response.body?.cancel();
    }
    const created = await app.fetch(
      new Request("http://service.example/v1/runs/team-b/saves", {
        method: "POST",
        headers: { authorization: `Bearer ${admin}`, "content-type": "application/json" },
        body: '{"step":1}',
      }),
    );
    expect(created.status).toBe(201);
    expect(await (await ask("GET", "/v1/runs", admin)).json()).toEqual({ runs: ["team-b"] });
  });

  test("no token is in the log or in any answer", async () => {
    const answers = await Promise.all(
      cells.map(async ({ method, path }) => {
        const response = await ask(method, path, tokens[0]!.token);
        // An event stream never ends by itself.
        const endless = response.headers.get("content-type") === "text/event-stream";
        if (endless) await response.body?.cancel();
        return JSON.stringify([...response.headers]) + (endless ? "" : await response.text());
      }),
    );
    expect(log.length).toBeGreaterThan(100);
    for (const text of [...log, ...answers]) expect(text).not.toContain("secret-of-");
  });
});

describe("tokens", () => {
  test("an expired token is refused from its time on", () => {
    const { token, record } = tokenOf("read");
    const expires = "2030-01-01T00:00:00Z";
    const request = new Request("http://x/", { headers: { authorization: `Bearer ${token}` } });
    const at = (now: number) => () => authenticator([{ ...record, expires }], () => now)(request).name;
    expect(at(Date.parse(expires) - 1)()).toBe("read-all");
    expect(at(Date.parse(expires))).toThrow("unknown or expired");
  });

  test("a token file of another form is refused by place, without what stands there", async () => {
    const bad = [
      "",
      "{}",
      '{"tokens":[]}',
      '{"tokens":[{"name":"a","sha256":"my-real-token","scopes":["read"]}]}',
      `{"tokens":[{"name":"a","sha256":"${"0".repeat(64)}","scopes":["root"]}]}`,
      `{"tokens":[{"name":"a","sha256":"${"0".repeat(64)}","scopes":["read"],"runs":"x"}]}`,
    ];
    for (const text of bad) {
      const path = join(folder, "bad.json");
      await Bun.write(path, text);
      const error = await readTokenFile(path).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(ConfigError);
      expect(String(error)).not.toContain("my-real-token");
    }
  });

  test("serve makes tokens, keeps their digests alone, and lets in who has them", async () => {
    const file = join(folder, "tokens.json");
    const made = await runCommand([
      "serve",
      "--token-file",
      file,
      "--new-token",
      "ci",
      "--scopes",
      "read,write",
      "--run",
      "x-",
    ]);
    const token = made.stdout.trim();
    expect([made.code, token]).toEqual([0, expect.stringMatching(/^fsdp_[A-Za-z0-9_-]{43}$/)]);
    expect(readFileSync(file, "utf8")).not.toContain(token);
    const records = await readTokenFile(file);
    expect(records).toEqual([
      { name: "ci", sha256: sha256(new TextEncoder().encode(token)), scopes: ["read", "write"], run: "x-" },
    ]);
    const request = new Request("http://x/", { headers: { authorization: `Bearer ${token}` } });
    expect(authenticator(records, Date.now)(request).name).toBe("ci");
    const twice = await runCommand(["serve", "--token-file", file, "--new-token", "ci"]);
    expect([twice.code, twice.stderr]).toEqual([1, expect.stringContaining('a token named "ci" already')]);
  });

  test("serve refuses to listen beyond this host without tokens", async () => {
    for (const host of ["0.0.0.0", "::", "192.168.0.1", "example.org"]) {
      const { code, stderr } = await runCommand(["serve", "--host", host, "--port", "0"]);
      expect([code, stderr]).toEqual([1, expect.stringContaining("without --token-file")]);
    }
  });
});

describe("a service without tokens", () => {
  test("answers everybody where its app has checked requests itself", async () => {
    const open = createCheckpointApp({ directory: join(folder, "open"), trustRequests: true });
    const response = await open.fetch(
      new Request("http://service.example/v1/runs", { headers: { origin: "http://x" } }),
    );
    expect(response.status).toBe(200);
  });

  const app = createCheckpointApp({ directory: join(folder, "local") });
  const status = async (url: string, headers: Record<string, string> = {}): Promise<number> =>
    (await app.fetch(new Request(url, { headers }))).status;

  test("answers to this host's own names, and neither to others nor to web pages", async () => {
    for (const host of ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"]) {
      expect(await status(`http://${host}:8787/healthz`)).toBe(200);
      expect(await status(`http://${host}:8787/healthz`, { host: `${host}:8787` })).toBe(200);
    }
    for (const host of [
      "attacker.example",
      "127.0.0.1.attacker.example",
      "10.0.0.1",
      "localhost.attacker.example",
    ]) {
      expect(await status(`http://${host}:8787/v1/runs`)).toBe(403);
      expect(await status("http://localhost:8787/v1/runs", { host })).toBe(403);
    }
    expect(await status("http://localhost:8787/v1/runs", { origin: "http://localhost:8787" })).toBe(200);
    for (const origin of ["http://attacker.example", "http://localhost:3000", "null"]) {
      expect(await status("http://localhost:8787/v1/runs", { origin })).toBe(403);
    }
  });
});

import { describe, expect, test } from "bun:test";
import { type ClientRequest, createClient, RefusedError } from "../../../../checkpoint/stores/http/client.ts";
import { httpStore } from "../../../../checkpoint/stores/http/store.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";

const ASK: ClientRequest = { method: "GET", url: "http://h/x", accept: [200] };

/** A service that answers from a list, the last of it for ever, and counts. */
function script(...answers: readonly (number | Error | (() => Response))[]) {
  const seen: RequestInit[] = [];
  return {
    seen,
    fetch: async (_url: string, init: RequestInit): Promise<Response> => {
      const answer = answers[Math.min(seen.length, answers.length - 1)]!;
      seen.push(init);
      if (answer instanceof Error) throw answer;
      if (typeof answer === "function") return answer();
      return new Response(answer === 200 ? "ok" : '{"title":"No","detail":"because"}', { status: answer });
    },
  };
}

const quick = { random: () => 0, retryForMs: 5000 };

describe("the client", () => {
  test("repeats after 429, 502, 503, 504 and cut connections, until it is answered", async () => {
    for (const failure of [429, 502, 503, 504, new TypeError("cut")]) {
      const service = script(failure, 200);
      const { attempts, status } = await createClient({ ...quick, fetch: service.fetch })("x", ASK);
      expect([attempts, status]).toEqual([2, 200]);
    }
  });

  test("never repeats what was refused for good, and says why", async () => {
    for (const status of [
      400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415, 416, 422, 431, 500, 501, 507,
    ]) {
      const service = script(status, 200);
      const error = await createClient({ ...quick, fetch: service.fetch })("load of x", ASK).catch(
        (e: unknown) => e,
      );
      expect(error).toBeInstanceOf(RefusedError);
      expect(String(error)).toContain(`load of x: because (status ${status})`);
      expect(service.seen.length).toBe(1);
    }
  });

  test("gives up after its time, in a bounded number of attempts", async () => {
    const service = script(503);
    const client = createClient({ fetch: service.fetch, random: () => 0.5, retryForMs: 800 });
    await expect(client("x", ASK)).rejects.toThrow(CheckpointError);
    expect(service.seen.length).toBeGreaterThan(1);
    expect(service.seen.length).toBeLessThan(6);
  });

  test("follows no redirect, and shows its token to nobody but the service", async () => {
    const token = "hunter2";
    const service = script(() => new Response(null, { status: 307, headers: { location: "http://evil/" } }));
    const client = createClient({ ...quick, fetch: service.fetch, token });
    const error = await client("x", ASK).catch((error: unknown) => error);
    expect(service.seen.length).toBe(1);
    expect(service.seen[0]!.redirect).toBe("manual");
    expect((service.seen[0]!.headers as Record<string, string>).authorization).toBe("Bearer hunter2");
    expect(Bun.inspect(error)).not.toContain(token);
  });

  test("takes no resource from another host", async () => {
    const body = JSON.stringify({ id: crypto.randomUUID(), checkpoint: "a", state: "open" });
    const service = script(
      () => new Response(body, { status: 201, headers: { location: "http://evil/save" } }),
    );
    const store = httpStore("http://h/runs/a", { ...quick, fetch: service.fetch });
    await expect(store.begin("a")).rejects.toThrow("another host");
  });

  test("takes an answer that is short, or another range, for none", async () => {
    const range = { begin: 10, end: 14 };
    const answer =
      (text: string, first = 10) =>
      () =>
        new Response(text, { status: 206, headers: { "content-range": `bytes ${first}-13/100` } });
    const ask = { ...ASK, accept: [206], range };
    const short = script(answer("ab"), answer("abcd"));
    const { body, attempts } = await createClient({ ...quick, fetch: short.fetch })("x", ask);
    expect([new TextDecoder().decode(body), attempts]).toEqual(["abcd", 2]);
    const other = script(answer("abcd", 9));
    await expect(createClient({ ...quick, fetch: other.fetch })("x", ask)).rejects.toThrow(
      "no bytes 10 to 14",
    );
    expect(other.seen.length).toBe(1);
    const sized = script(() => new Response("abc", { headers: { "content-size": "4" } }), 200);
    expect((await createClient({ ...quick, fetch: sized.fetch })("x", ASK)).attempts).toBe(2);
  });

  test("reads of an error no more than it needs", async () => {
    let pulled = 0;
    const endless = () =>
      new Response(
        new ReadableStream({
          pull(controller): void {
            pulled++;
            controller.enqueue(new Uint8Array(16 * 1024));
          },
        }),
        { status: 400 },
      );
    const client = createClient({ ...quick, fetch: script(endless).fetch });
    await expect(client("x", ASK)).rejects.toThrow("status 400");
    expect(pulled).toBeLessThan(20);
  });
});

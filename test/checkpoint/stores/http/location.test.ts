import { describe, expect, test } from "bun:test";
import { parseHttpLocation } from "../../../../checkpoint/stores/http/location.ts";
import { httpStore, openHttpStore } from "../../../../checkpoint/stores/http/store.ts";
import { CheckpointError, ConfigError } from "../../../../core/contracts/errors.ts";

describe("an HTTP location", () => {
  test("names a run, or one checkpoint of it, below wherever the service is mounted", () => {
    const cases = [
      ["http://127.0.0.1:8787/runs/a", "http://127.0.0.1:8787", "a", undefined],
      ["http://h/runs/a/", "http://h", "a", undefined],
      ["https://h.example/x/y/runs/a-1.b_c", "https://h.example/x/y", "a-1.b_c", undefined],
      ["http://[::1]:9/runs/a/step-00000001", "http://[::1]:9", "a", "step-00000001"],
      ["http://h/runs/runs/runs", "http://h", "runs", "runs"],
    ] as const;
    for (const [given, root, name, checkpoint] of cases) {
      const parsed = { location: `${root}/runs/${name}`, run: `${root}/v1/runs/${name}`, checkpoint };
      expect(parseHttpLocation(given)).toEqual(parsed);
    }
  });

  test("of all runs holds no checkpoints, and takes none", async () => {
    const store = httpStore("http://h/x/runs");
    expect(await store.list()).toEqual([]);
    await expect(store.begin("a")).rejects.toThrow("no run in http://h/x/runs");
    await expect(store.files("a")).rejects.toThrow(CheckpointError);
  });

  test("of another kind is left to other stores", () => {
    for (const location of ["runs/a", "/runs/a", "memory:a", "ftp://h/runs/a", "httpx://h/runs/a", ""]) {
      expect(openHttpStore(location)).toBeUndefined();
      expect(() => httpStore(location)).toThrow(ConfigError);
    }
  });

  test("with credentials, a query or no run is refused, and not repeated in the message", () => {
    const bad = [
      "http://user:hunter2@h/runs/a",
      "http://hunter2@h/runs/a",
      "http://h/runs/a?token=hunter2",
      "http://h/runs/a#hunter2",
      "http://h",
      "http://h/",
      "http://h/runs/A",
      "http://h/runs/../a",
      "http://h/runs/a/b/c",
      "http://h/runs/%2e%2e",
      "http://h/runs/a%2fb",
      "http://h:99999/runs/a",
      "http://",
    ];
    for (const location of bad) {
      expect(() => openHttpStore(location)).toThrow(ConfigError);
      expect(() => openHttpStore(location)).not.toThrow("hunter2");
    }
  });
});

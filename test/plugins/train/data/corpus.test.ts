import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { ConfigError } from "../../../../core/contracts/errors.ts";
import { HELD_OUT, makeCorpus, readCorpus, SEPARATOR } from "../../../../plugins/train/data/corpus.ts";
import { demoCorpus } from "../../../../plugins/train/data/demo-corpus.ts";
import { readTextFiles } from "../../../../plugins/train/data/text-files.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "corpus-"));
  const files: Record<string, string | Uint8Array> = {
    "b.md": "bee",
    "a.ts": "ay",
    "deep/er/c.txt": "sea",
    "a/z.js": "zed",
    ".hidden.md": "no",
    ".git/x.md": "no",
    "image.png": "no",
    "data.json": "no",
    "binary.txt": Uint8Array.of(65, 0, 66),
    "large.txt": "x".repeat(4 * 2 ** 20 + 1),
    "node_modules/p/index.d.ts": "pee",
    "node_modules/p/node_modules/q/README.md": "queue",
    "none/data.bin": "no",
  };
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  await symlink(folder, join(folder, "deep", "loop"));
});
afterAll(() => rm(folder, { recursive: true }));

const textsAt = async (path: string) =>
  (await readTextFiles(join(folder, path), "--data")).map((bytes) => new TextDecoder().decode(bytes));

describe("readTextFiles", () => {
  test("takes text files at any depth in the order of names, and nothing hidden, large, binary or linked", async () => {
    expect(await textsAt("")).toEqual(["zed", "ay", "bee", "sea"]);
  });

  test("enters node_modules only from within", async () => {
    expect(await textsAt("node_modules")).toEqual(["pee", "queue"]);
    expect(await textsAt("node_modules/p")).toEqual(["pee", "queue"]);
  });

  test("takes a file by name whatever its ending and size", async () => {
    expect(await textsAt("data.json")).toEqual(["no"]);
    expect(await textsAt(".hidden.md")).toEqual(["no"]);
    expect((await textsAt("large.txt"))[0]).toHaveLength(4 * 2 ** 20 + 1);
  });
});

describe("readCorpus", () => {
  test("names the option when a path is missing, binary, or holds no text", async () => {
    const message = async (...paths: string[]) => {
      const error: unknown = await readCorpus(paths.map((path) => join(folder, path))).catch(
        (thrown) => thrown,
      );
      expect(error).toBeInstanceOf(ConfigError);
      return (error as ConfigError).message;
    };
    expect(await message("a.ts", "missing")).toMatch(
      /^cannot use --data: given ".*missing", which does not exist$/,
    );
    expect(await message("binary.txt")).toMatch(
      /^cannot use --data: given binary file ".*binary.txt", allowed are/,
    );
    expect(await message("none")).toMatch(/^cannot use --data: given ".*none", which holds no text files$/);
    expect(await message()).toBe("cannot use --data: given nothing, which holds no text files");
  });

  test("a document that comes twice counts once", async () => {
    const { documents } = await readCorpus([folder, join(folder, "a.ts"), join(folder, "a")]);
    expect(documents).toBe(4);
  });
});

describe("makeCorpus", () => {
  const split = (bytes: Uint8Array) => {
    const text = new TextDecoder().decode(bytes);
    return text === "" ? [] : text.split("\0").slice(0, -1);
  };

  test("every document is whole in one part, and the held-out part stays within its share", () => {
    const texts = fc.uniqueArray(fc.stringMatching(/^[a-z]{1,30}$/), { minLength: 60, maxLength: 200 });
    fc.assert(
      fc.property(texts, (documents) => {
        const corpus = makeCorpus(documents.map((text) => new TextEncoder().encode(text)));
        const [train, heldOut] = [split(corpus.train), split(corpus.heldOut)];
        expect([...train, ...heldOut].sort()).toEqual([...documents].sort());
        expect(train).toEqual(documents.filter((text) => train.includes(text)));
        const total = corpus.train.length + corpus.heldOut.length;
        expect(corpus.heldOut.length).toBeGreaterThan(0);
        expect(corpus.heldOut.length).toBeLessThanOrEqual(HELD_OUT * total);
      }),
      { numRuns: 50 },
    );
  });

  test("which documents are held out does not depend on their order", () => {
    const documents = Array.from({ length: 100 }, (_, i) => new TextEncoder().encode(`document ${i}`));
    const forward = split(makeCorpus(documents).heldOut);
    expect(forward.length).toBeGreaterThan(2);
    expect(split(makeCorpus(documents.toReversed()).heldOut).toReversed()).toEqual(forward);
  });

  test("a single document gives up its end", () => {
    const bytes = new Uint8Array(999).map((_, i) => 1 + (i % 200));
    const { train, heldOut, documents } = makeCorpus([bytes]);
    expect([train.length, heldOut.length, documents]).toEqual([950, 50, 1]);
    expect([...train, ...heldOut]).toEqual([...bytes, SEPARATOR]);
  });

  test("nothing makes nothing", () => {
    expect(makeCorpus([new Uint8Array(0)])).toEqual({
      train: new Uint8Array(0),
      heldOut: new Uint8Array(0),
      documents: 0,
    });
  });
});

describe("demoCorpus", () => {
  const ROOT = new URL("../../../../mod.ts", import.meta.url).href;

  test("is bounded, repeatable and holds this project's sources", async () => {
    const corpus = await demoCorpus(ROOT, 2 ** 21);
    const text = new TextDecoder().decode(corpus.train) + new TextDecoder().decode(corpus.heldOut);
    expect(text).toContain("export async function demoCorpus(");
    expect(corpus.train.length + corpus.heldOut.length).toBeLessThanOrEqual(2 ** 21 + corpus.documents);
    expect(corpus.heldOut.length).toBeGreaterThan(2 ** 16);
    expect(await demoCorpus(ROOT, 2 ** 21)).toEqual(corpus);
  });

  test("finds packages that are linked into place, and theirs beside them", async () => {
    // The layout of `deno install`: links at the top, real folders with their dependencies in a hidden one.
    const write = async (name: string, content: string) => {
      await mkdir(dirname(join(folder, "checkout", name)), { recursive: true });
      await writeFile(join(folder, "checkout", name), content);
    };
    const store = "node_modules/.deno/a@1/node_modules";
    await write("package.json", '{"dependencies":{"a":"1"}}');
    await write("mod.ts", "own source");
    await write(`${store}/a/package.json`, '{"dependencies":{"b":"2"},"devDependencies":{"c":"3"}}');
    await write(`${store}/a/index.d.ts`, "types of a");
    await write(`${store}/a/index.js`, "code of a");
    await write(`${store}/b/README.md`, "prose of b");
    await write("node_modules/c/README.md", "prose of c");
    await symlink(join(folder, "checkout", store, "a"), join(folder, "checkout/node_modules/a"));
    const { train, heldOut } = await demoCorpus(new URL(`file://${folder}/checkout/mod.ts`).href);
    const documents = new TextDecoder().decode(Uint8Array.of(...train, ...heldOut)).split("\0");
    expect(documents.sort()).toEqual(["", "own source", "prose of b", "types of a"]);
  });

  test("without any text is a config error", async () => {
    await expect(demoCorpus(new URL(`file://${folder}/none/mod.ts`).href)).rejects.toThrow(ConfigError);
  });
});

import { expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { openManifest } from "../../checkpoint/open-manifest.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { inFolder } from "../support/command.ts";

const SCRIPT = fileURLToPath(new URL("./racing-save.ts", import.meta.url));
const LABELS = ["a", "b", "c"];

test("of processes that save the same steps at once exactly one wins each, and the others' ranks are told why", async () => {
  await inFolder(async (root) => {
    const printed = await Promise.all(
      LABELS.map(async (label) => {
        const child = Bun.spawn([process.execPath, SCRIPT, root, label], { stderr: "pipe" });
        const [said, problems] = await Promise.all([
          new Response(child.stdout).text(),
          new Response(child.stderr).text(),
          child.exited,
        ]);
        expect(problems).toBe("");
        return said
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line) as string[]);
      }),
    );
    const store = directoryStore(root);
    const names = await store.list();
    expect(names.length).toBe(8);
    expect(await readdir(root)).toHaveLength(8);
    for (const [i, name] of names.entries()) {
      const winners = LABELS.filter((_, p) => printed[p]![i]![0] === "won");
      expect(winners.length).toBe(1);
      for (const process of printed) {
        const [first, second] = process[i]!;
        expect(second).toBe(first!);
        if (first !== "won") expect(first).toContain("the name is taken");
      }
      const { manifest } = await openManifest(store, name);
      expect(manifest.tensors.map((tensor) => tensor.name)).toEqual(winners);
      expect(await nativeCheckpointer(store).verify(name)).toEqual([]);
    }
  });
}, 60_000);

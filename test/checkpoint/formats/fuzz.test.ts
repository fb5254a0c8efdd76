import { expect, test } from "bun:test";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { openDcp } from "../../../checkpoint/formats/dcp/reader.ts";
import { FsdpError } from "../../../core/contracts/errors.ts";
import { inFolder } from "../../support/command.ts";
import { generator } from "../layouts.ts";
import { dcpFixture } from "./dcp/fixtures.ts";
import { bytesAt, mutate, SEED } from "./fuzz-targets.ts";

const MUTATIONS = 10_000;

test("10,000 mutations of valid files are read or refused with an error of the project, and take no memory", async () => {
  console.log(`fuzz seed ${SEED}`);
  // In a process of its own, whose memory is that of the readers alone.
  const script = fileURLToPath(new URL("fuzz-run.ts", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, String(MUTATIONS)]);
  const { refused, growth } = JSON.parse(stdout) as Record<string, number>;
  // Most are caught; a change to data or to a name may well be valid.
  expect(refused).toBeGreaterThan(MUTATIONS / 2);
  expect(growth).toBeLessThan(512 * 2 ** 20);
}, 120_000);

test("mutations of a whole checkpoint folder are found when it is opened or read, and leave no file open", async () => {
  await inFolder(async (folder) => {
    const source = dcpFixture("fsdp2-world2");
    const files = [".metadata", "__0_0.distcp", "__1_0.distcp"];
    const originals = new Map<string, Uint8Array>();
    for (const file of files) {
      originals.set(file, await bytesAt(join(source, file)));
      await writeFile(join(folder, file), originals.get(file)!);
    }
    let refused = 0;
    for (let i = 0; i < 300; i++) {
      const random = generator(SEED - i);
      const file = files[i % 3]!;
      await writeFile(join(folder, file), mutate(originals.get(file)!, random));
      try {
        const reader = await openDcp(folder);
        try {
          for (const name of reader.names) await reader.read(name);
        } finally {
          await reader.close();
        }
      } catch (error) {
        if (!(error instanceof FsdpError))
          throw new Error(`${file}: seed ${SEED}, mutation ${i}`, { cause: error });
        refused++;
      }
      await writeFile(join(folder, file), originals.get(file)!);
    }
    expect(refused).toBeGreaterThan(150);
  });
}, 120_000);

/**
 * Run by Deno and by Bun in `file-appender.test.ts`: `FOLDER`. Appends to a file past the page cache, as far as that can be,
 * with one write at a time and with more. Prints the SHA-256 of what was seen and of the files.
 *
 * @module
 */
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sha256Hex } from "../../../checkpoint/digest.ts";
import { startHashThread } from "../../../checkpoint/hash-thread.ts";
import { fileAppender } from "../../../checkpoint/stores/file-appender.ts";
import { nodeFileSystem } from "../../../checkpoint/stores/file-system.ts";
import { patternTensor } from "../states.ts";

const BEGIN = 5000;
const { bytes: data } = patternTensor("appended", "uint8", [150_001]);
const thread = startHashThread();
const printed: unknown[] = [sha256Hex(data), sha256Hex(data.subarray(BEGIN))];
for (const depth of [1, 2]) {
  const path = join(process.argv[2]!, `depth-${depth}`);
  await writeFile(path, data.subarray(0, BEGIN));
  const hasher = thread.hashFile();
  const appender = await fileAppender(nodeFileSystem, await open(path, "r+"), path, BEGIN, {
    direct: true,
    bufferBytes: 16_384,
    depth,
    seen: (bytes) => Promise.resolve(hasher.update(bytes)),
  });
  for (let at = BEGIN; at < data.length; at += 7001) {
    await appender.write(data.subarray(at, at + 7001));
    if (depth === 1 && at % 3 === 0) await appender.flush();
  }
  await appender.sync();
  await appender.close();
  printed.push(sha256Hex(await readFile(path)), (await hasher.finish()).sha256);
}
await thread.close();
console.log(JSON.stringify(printed));

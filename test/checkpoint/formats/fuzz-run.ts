/** Started by `fuzz.test.ts`: mutates valid files and prints how many were refused, and how far this process grew. */
import process from "node:process";
import { FsdpError } from "../../../core/contracts/errors.ts";
import { generator } from "../layouts.ts";
import { mutate, SEED, targets } from "./fuzz-targets.ts";

const mutations = Number(process.argv[2]);
const all = await targets();
for (const { bytes, read } of all) await read(bytes);
const before = process.memoryUsage().rss;
let [most, refused] = [before, 0];
for (let i = 0; i < mutations; i++) {
  const target = all[i % all.length]!;
  const bytes = mutate(target.bytes, generator(SEED + i));
  try {
    await target.read(bytes);
  } catch (error) {
    if (!(error instanceof FsdpError)) {
      const input = Buffer.from(bytes).toString("hex");
      throw new Error(`${target.name}: seed ${SEED}, mutation ${i}: ${input}`, { cause: error });
    }
    refused++;
  }
  if (i % 100 === 0) most = Math.max(most, process.memoryUsage().rss);
}
console.log(JSON.stringify({ refused, growth: most - before }));

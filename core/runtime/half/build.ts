/**
 * Builds the module of 16-bit floats from its AssemblyScript source and writes `module.generated.ts` beside this file:
 * run `bun core/runtime/half/build.ts`. A test builds it again and compares.
 *
 * @module
 */
import { writeFile } from "node:fs/promises";
import { compileAssembly } from "../wasm/build.ts";

const OUTPUT = new URL("module.generated.ts", import.meta.url);

/** The text of `module.generated.ts` as the source gives it. @throws DeviceError when it does not compile. */
export async function buildHalf(): Promise<string> {
  const features = ["simd", "threads"];
  const sources = new URL("assembly/", import.meta.url);
  const code = await compileAssembly({ sources, features, initialPages: 1 });
  return [
    "// Made by build.ts from assembly/. Do not edit.",
    "",
    `/** The module that needs ${features.join(", ")}, in base64. */`,
    `export const half: string =\n  "${code}";`,
    "",
  ].join("\n");
}

if (import.meta.main) {
  const text = await buildHalf();
  await writeFile(OUTPUT, text);
  console.log(`${OUTPUT.pathname}: ${text.length} bytes`);
}

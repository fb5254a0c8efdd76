/**
 * Builds the WebAssembly kernels from their AssemblyScript sources and writes `kernels.generated.ts` beside this file:
 * run `bun backends/cpu/wasm/build.ts`. A test builds them again and compares.
 *
 * @module
 */
import { writeFile } from "node:fs/promises";
import { compileAssembly } from "../../../core/runtime/wasm/build.ts";
import { RESERVED_PAGES } from "../memory.ts";

const SOURCES = new URL("assembly/", import.meta.url);
const OUTPUT = new URL("kernels.generated.ts", import.meta.url);

/** Variants and the WebAssembly features that each needs. */
const VARIANTS = { relaxed: ["simd", "threads", "relaxed-simd"], simd: ["simd", "threads"] } as const;

/** The text of `kernels.generated.ts` as the sources give it. @throws DeviceError when they do not compile. */
export async function buildKernels(): Promise<string> {
  const lines = ["// Made by build.ts from assembly/. Do not edit.", ""];
  for (const [name, features] of Object.entries(VARIANTS)) {
    const code = await compileAssembly({ sources: SOURCES, features, initialPages: RESERVED_PAGES });
    lines.push(`/** The module that needs ${features.join(", ")}, in base64. */`);
    lines.push(`export const ${name}: string =\n  "${code}";`, "");
  }
  return lines.join("\n");
}

if (import.meta.main) {
  const text = await buildKernels();
  await writeFile(OUTPUT, text);
  console.log(`${OUTPUT.pathname}: ${text.length} bytes`);
}

/**
 * Builds the WebAssembly kernels from their AssemblyScript sources and writes `kernels.generated.ts` beside this file:
 * run `bun backends/cpu/wasm/build.ts`. A test builds them again and compares.
 *
 * @module
 */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { DeviceError } from "../../../core/contracts/errors.ts";
import { RESERVED_PAGES } from "../memory.ts";

const SOURCES = new URL("assembly/", import.meta.url);
const OUTPUT = new URL("kernels.generated.ts", import.meta.url);

/** Variants and the WebAssembly features that each needs. */
const VARIANTS = { relaxed: ["simd", "threads", "relaxed-simd"], simd: ["simd", "threads"] } as const;

/** The text of `kernels.generated.ts` as the sources give it. @throws DeviceError when they do not compile. */
export async function buildKernels(): Promise<string> {
  const sources = new Map<string, string>();
  for (const file of await readdir(SOURCES)) {
    if (file.endsWith(".ts")) sources.set(file, await readFile(new URL(file, SOURCES), "utf8"));
  }
  const lines = ["// Made by build.ts from assembly/. Do not edit.", ""];
  for (const [name, features] of Object.entries(VARIANTS)) {
    const wasm = await compile(sources, features);
    lines.push(`/** The module that needs ${features.join(", ")}, in base64. */`);
    lines.push(`export const ${name}: string =\n  "${Buffer.from(wasm).toString("base64")}";`, "");
  }
  return lines.join("\n");
}

async function compile(
  sources: ReadonlyMap<string, string>,
  features: readonly string[],
): Promise<Uint8Array> {
  const { default: asc } = await import("assemblyscript/asc");
  let binary: Uint8Array | undefined;
  const { error, stderr } = await asc.main(
    [
      ...["index.ts", "--outFile", "kernels.wasm", "--runtime", "stub", "-O3", "--converge", "--noAssert"],
      ...[
        "--importMemory",
        "--sharedMemory",
        "--initialMemory",
        `${RESERVED_PAGES}`,
        "--maximumMemory",
        "65536",
      ],
      ...features.flatMap((feature) => ["--enable", feature]),
    ],
    {
      readFile: (name) => sources.get(name) ?? null,
      writeFile: (_, contents) => {
        if (contents instanceof Uint8Array) binary = contents;
      },
      listFiles: () => [],
    },
  );
  if (error !== null || binary === undefined) {
    throw new DeviceError(`wasm build: AssemblyScript failed: ${stderr.toString()}`, { cause: error });
  }
  return binary;
}

if (import.meta.main) {
  const text = await buildKernels();
  await writeFile(OUTPUT, text);
  console.log(`${OUTPUT.pathname}: ${text.length} bytes`);
}

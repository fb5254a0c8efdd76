/**
 * Compiles AssemblyScript, for the scripts that build the WebAssembly modules of the project. Runs in a checkout only.
 *
 * @module
 */
import { readdir, readFile } from "node:fs/promises";
import { DeviceError } from "../../contracts/errors.ts";

/** What a module is built for. */
export interface AssemblyOptions {
  /** Folder of the sources; its entry is `index.ts`. */
  readonly sources: URL;
  /** WebAssembly features that it needs, for example `simd`. */
  readonly features: readonly string[];
  /** Pages of 64 KiB that the imported shared memory has at least. */
  readonly initialPages: number;
}

/** The module's bytes in base64, the same for the same sources. @throws DeviceError when they do not compile. */
export async function compileAssembly({ sources, features, initialPages }: AssemblyOptions): Promise<string> {
  const texts = new Map<string, string>();
  for (const file of await readdir(sources)) {
    if (file.endsWith(".ts")) texts.set(file, await readFile(new URL(file, sources), "utf8"));
  }
  const { default: asc } = await import("assemblyscript/asc");
  let binary: Uint8Array | undefined;
  const { error, stderr } = await asc.main(
    [
      ...["index.ts", "--outFile", "module.wasm", "--runtime", "stub", "-O3", "--converge", "--noAssert"],
      ...[
        "--importMemory",
        "--sharedMemory",
        "--initialMemory",
        `${initialPages}`,
        "--maximumMemory",
        "65536",
      ],
      ...features.flatMap((feature) => ["--enable", feature]),
    ],
    {
      readFile: (name) => texts.get(name) ?? null,
      writeFile: (_, contents) => {
        if (contents instanceof Uint8Array) binary = contents;
      },
      listFiles: () => [],
    },
  );
  if (error !== null || binary === undefined) {
    throw new DeviceError(`wasm build: AssemblyScript failed: ${stderr.toString()}`, { cause: error });
  }
  return Buffer.from(binary).toString("base64");
}

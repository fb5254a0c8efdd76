/**
 * Matrix multiplication by the machine's BLAS (OpenBLAS, Accelerate, MKL) through its C interface, in place on the
 * device's memory.
 *
 * @module
 */
import { availableParallelism } from "node:os";
import type { GemmEngine, GemmFunction } from "./gemm.ts";

const ROW_MAJOR = 101;
const NO_TRANSPOSE = 111;
const TRANSPOSE = 112;

/** Libraries to look for, by platform, the best first. */
const CANDIDATES: Readonly<Record<string, readonly string[]>> = {
  linux: ["libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.2", "libmkl_rt.so.3", "libmkl_rt.so"],
  darwin: [
    "/System/Library/Frameworks/Accelerate.framework/Accelerate",
    "/opt/homebrew/opt/openblas/lib/libopenblas.dylib",
    "/usr/local/opt/openblas/lib/libopenblas.dylib",
  ],
  win32: ["libopenblas.dll", "openblas.dll", "mkl_rt.2.dll", "mkl_rt.dll"],
};

/** Operations from which a product gains more from a second thread than waking it costs. Attention's products stay below. */
const WORTH_SHARING = 3e7;

const HOW_TO_INSTALL: Readonly<Record<string, string>> = {
  linux: "install it with: apt-get install libopenblas0 (Debian, Ubuntu) or dnf install openblas (Fedora)",
  darwin: "Accelerate is part of macOS; or install OpenBLAS with: brew install openblas",
  win32: "put libopenblas.dll from the OpenBLAS releases on the PATH",
};

/** A BLAS that was found. */
export interface BlasLibrary {
  readonly file: string;
  /** For people, for example `OpenBLAS 0.3.21`. */
  readonly title: string;
  readonly threads: number;
  /** Gives the library a number of threads, for the whole process. Accelerate decides for itself. */
  setThreads(threads: number): void;
  readonly sgemm: CblasGemm;
  readonly dgemm: CblasGemm;
  /** The address of a buffer's first byte. */
  address(bytes: Uint8Array): number;
}

type CblasGemm = (
  order: number,
  transposeA: number,
  transposeB: number,
  m: number,
  n: number,
  k: number,
  alpha: number,
  a: number,
  lda: number,
  b: number,
  ldb: number,
  beta: number,
  c: number,
  ldc: number,
) => void;

type Koffi = typeof import("koffi");

/** What looking for a BLAS came to: a library, or why there is none. */
export type BlasSearch = BlasLibrary | { readonly missing: string };

/**
 * Looks for a BLAS. Its share of the cores is `max(1, floor(cores / localWorldSize))` threads.
 */
export async function findBlas(localWorldSize: number): Promise<BlasSearch> {
  const names = CANDIDATES[process.platform] ?? [];
  let koffi: Koffi;
  try {
    koffi = (await import("koffi")).default as unknown as Koffi;
  } catch (error) {
    return { missing: `the package koffi cannot be loaded (${reason(error)})` };
  }
  const threads = Math.max(1, Math.floor(availableParallelism() / Math.max(1, localWorldSize)));
  for (const file of names) {
    const library = open(koffi, file, threads);
    if (library !== undefined) return library;
  }
  const install = HOW_TO_INSTALL[process.platform];
  return {
    missing: `looked for ${names.join(", ") || "nothing on this platform"}${install ? `; ${install}` : ""}`,
  };
}

function open(koffi: Koffi, file: string, threads: number): BlasLibrary | undefined {
  try {
    const library = koffi.load(file);
    const signature = (name: string, real: string): string =>
      `void ${name}(int order, int ta, int tb, int m, int n, int k, ${real} alpha, uintptr_t a, int lda, uintptr_t b, int ldb, ${real} beta, uintptr_t c, int ldc)`;
    const call = (prototype: string): ((...args: unknown[]) => unknown) | undefined => {
      try {
        return library.func(prototype);
      } catch {
        return undefined;
      }
    };
    const setThreads =
      call("void openblas_set_num_threads(int n)") ??
      call("void MKL_Set_Num_Threads(int n)") ??
      (() => undefined);
    // "OpenBLAS 0.3.21 NO_AFFINITY ... MAX_THREADS=128"
    const config = call("const char *openblas_get_config()")?.();
    const fallback = file.includes("mkl") ? "MKL" : file.includes("Accelerate") ? "Accelerate" : "BLAS";
    return {
      file,
      title: typeof config === "string" ? config.split(" ").slice(0, 2).join(" ") : fallback,
      threads,
      setThreads: (count) => void setThreads(count),
      sgemm: library.func(signature("cblas_sgemm", "float")),
      dgemm: library.func(signature("cblas_dgemm", "double")),
      address: (bytes) => Number(koffi.address(bytes)),
    };
  } catch {
    // Not there, or without the C interface: the next candidate may do.
    return undefined;
  }
}

/** The engine of a found library over a device's memory. A shared memory never moves, so its address is taken once. */
export function blasEngine(memory: WebAssembly.Memory, library: BlasLibrary): GemmEngine {
  library.setThreads(1);
  let threads = 1;
  const share = (flops: number): void => {
    const wanted = flops < WORTH_SHARING ? 1 : library.threads;
    if (wanted !== threads) library.setThreads(wanted);
    threads = wanted;
  };
  const base = library.address(new Uint8Array(memory.buffer));
  return {
    name: "blas",
    float32: gemm(base, library.sgemm, share),
    float64: gemm(base, library.dgemm, share),
  };
}

/** One line about a library, for people. */
export function describeBlas({ title, file, threads }: BlasLibrary): string {
  return `${title} (${file}), ${threads} ${threads === 1 ? "thread" : "threads"} a rank`;
}

function gemm(base: number, function_: CblasGemm, share: (flops: number) => void): GemmFunction {
  return (m, n, k, alpha, a, lda, transposeA, b, ldb, transposeB, c, ldc, accumulate) => {
    share(2 * m * n * k);
    function_(
      ROW_MAJOR,
      transposeA ? TRANSPOSE : NO_TRANSPOSE,
      transposeB ? TRANSPOSE : NO_TRANSPOSE,
      m,
      n,
      k,
      alpha,
      base + a,
      // A single row may come with any stride; BLAS wants at least its length.
      Math.max(lda, transposeA ? m : k),
      base + b,
      Math.max(ldb, transposeB ? k : n),
      accumulate ? 1 : 0,
      base + c,
      Math.max(ldc, n),
    );
  };
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

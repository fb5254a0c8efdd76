/**
 * Which engine multiplies matrices and whether WebAssembly kernels are used: decided in one place, for devices and for
 * what `env` reports.
 *
 * @module
 */
import { DeviceError } from "../../core/contracts/errors.ts";
import { loadHalf } from "../../core/runtime/half/module.ts";
import { type HalfConverter, plainConverter } from "../../core/runtime/half/plain.ts";
import { type BlasLibrary, blasEngine, describeBlas, findBlas } from "./gemm/blas.ts";
import type { GemmEngine } from "./gemm/gemm.ts";
import { plainEngine } from "./gemm/plain.ts";
import { wasmEngine } from "./gemm/wasm.ts";
import type { CpuMemory } from "./memory.ts";
import type { CpuSettings } from "./settings.ts";
import { findVariant, loadKernels, type WasmKernels, type WasmVariant } from "./wasm/load.ts";

/** What will be used on this machine. */
export interface EnginePlan {
  readonly matmul: "blas" | "wasm" | "plain";
  readonly blas: BlasLibrary | undefined;
  readonly variant: WasmVariant | undefined;
  /** One line: the engine of matrix products, and why when it is not the first choice. */
  readonly matmulLine: string;
  /** One line: what the other kernels are. */
  readonly kernelsLine: string;
}

/** Chooses by the settings and by what there is. @throws DeviceError when what was asked for is missing. */
export async function planEngines(settings: CpuSettings, localWorldSize: number): Promise<EnginePlan> {
  const variant = findVariant();
  const kernelsLine =
    settings.kernels === "fast" && variant !== undefined ? `WebAssembly ${variant.name}` : "plain TypeScript";
  const decided = { variant, kernelsLine };
  const wantsBlas = settings.matmul === "auto" || settings.matmul === "blas";
  const search = wantsBlas ? await findBlas(localWorldSize) : undefined;
  if (search !== undefined && !("missing" in search)) {
    return { ...decided, matmul: "blas", blas: search, matmulLine: describeBlas(search) };
  }
  if (settings.matmul === "blas") {
    throw new DeviceError(`cpu setting matmul: blas was given, but no BLAS was found: ${search?.missing}`);
  }
  const why = search === undefined ? "" : `no BLAS found: ${search.missing}; using `;
  if (settings.matmul !== "plain" && variant !== undefined) {
    return { ...decided, matmul: "wasm", blas: undefined, matmulLine: `${why}WebAssembly ${variant.name}` };
  }
  if (settings.matmul === "wasm") {
    throw new DeviceError("cpu setting matmul: wasm was given, but this runtime has no SIMD in WebAssembly");
  }
  return { ...decided, matmul: "plain", blas: undefined, matmulLine: `${why}plain TypeScript` };
}

/** A plan at work in a device's memory. */
export interface Engines {
  readonly engine: GemmEngine;
  /** The module, when kernels beside matrix products are to use it. */
  readonly wasm: WasmKernels | undefined;
  /** Between 16-bit floats and float32. */
  readonly converter: HalfConverter;
}

/** Starts a plan. */
export async function startEngines(
  plan: EnginePlan,
  settings: CpuSettings,
  memory: CpuMemory,
): Promise<Engines> {
  const plain = plainEngine(memory);
  const needed = plan.matmul === "wasm" || settings.kernels === "fast";
  const loaded = needed && plan.variant !== undefined ? await loadKernels(plan.variant, memory) : undefined;
  const wasm = settings.kernels === "fast" ? loaded : undefined;
  const fast = settings.kernels === "fast" ? loadHalf(memory.memory) : undefined;
  const others = { wasm, converter: fast ?? plainConverter(() => memory.memory.buffer) };
  if (plan.blas !== undefined) return { engine: blasEngine(memory.memory, plan.blas), ...others };
  if (plan.matmul === "wasm" && loaded !== undefined) return { engine: wasmEngine(loaded, plain), ...others };
  return { engine: plain, ...others };
}

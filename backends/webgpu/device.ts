/**
 * One GPU device: what it can do, and what went wrong on it.
 *
 * WebGPU reports errors later than the call that made them. The first one is kept, and thrown as a DeviceError by the
 * next call and by every wait from then on: after an invalid command nothing that follows can be trusted.
 *
 * @module
 */
import { DeviceError } from "../../core/contracts/errors.ts";
import type { WebgpuSettings } from "./settings.ts";

/** One shape of subgroup matrices: `left [m, k] x right [k, n]` of `component`, added up in `result`. */
export interface MatrixShape {
  readonly component: string;
  readonly result: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** What kernels may use. */
export interface GpuFeatures {
  /** 16-bit floats in kernels. */
  readonly f16: boolean;
  /** Subgroup operations; sizes below are 0 without. */
  readonly subgroups: boolean;
  readonly minLanes: number;
  readonly maxLanes: number;
  /** Shapes of subgroup matrices (tensor cores); none when absent or off. */
  readonly matrices: readonly MatrixShape[];
  /** Bytes of parameters that go with a command; 0 without immediates. */
  readonly immediateBytes: number;
  readonly timestamps: boolean;
  /** Workgroup memory and barriers pay: not on adapters that are a CPU. */
  readonly tiled: boolean;
}

/** Sizes that bound kernels and buffers. */
export interface GpuLimits {
  readonly maxBufferBytes: number;
  /** Largest storage binding. */
  readonly maxBindingBytes: number;
  /** Where a binding may begin. */
  readonly bindingAlignment: number;
  readonly workgroupBytes: number;
  readonly workgroupInvocations: number;
  readonly storageBuffers: number;
}

/** Adapter properties that are not in the standard, as Dawn names them. */
interface DawnInfo {
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  readonly subgroupMatrixConfigs?: Iterable<{
    readonly componentType: string;
    readonly resultComponentType: string;
    readonly M: number;
    readonly N: number;
    readonly K: number;
  }>;
}

const MATRIX_FEATURE = "chromium-experimental-subgroup-matrix";

/** What an adapter offers under the settings. */
export function featuresOf(gpu: GPU, adapter: GPUAdapter, settings: WebgpuSettings): GpuFeatures {
  const has = (name: string): boolean => adapter.features.has(name as GPUFeatureName);
  const language = (name: string): boolean => gpu.wgslLanguageFeatures?.has(name) ?? false;
  const info: DawnInfo = adapter.info;
  const subgroups = settings.subgroups && has("subgroups") && language("subgroup_id");
  const f16 = settings.f16 && has("shader-f16");
  const matrices =
    settings.matrix && subgroups && has(MATRIX_FEATURE) ? (info.subgroupMatrixConfigs ?? []) : [];
  return {
    f16,
    subgroups,
    minLanes: subgroups ? (info.subgroupMinSize ?? 4) : 0,
    maxLanes: subgroups ? (info.subgroupMaxSize ?? 128) : 0,
    matrices: [...matrices].map((config) => ({
      component: config.componentType,
      result: config.resultComponentType,
      m: config.M,
      n: config.N,
      k: config.K,
    })),
    immediateBytes:
      settings.immediates && language("immediate_address_space") ? (adapter.limits.maxImmediateSize ?? 0) : 0,
    timestamps: has("timestamp-query"),
    tiled:
      settings.kernels === "auto" ? adapter.info.isFallbackAdapter !== true : settings.kernels === "tiled",
  };
}

const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupStorageSize",
  "maxImmediateSize",
] as const;

/** A device of an adapter, with everything that the adapter has. @throws DeviceError when it gives none. */
export async function openDevice(
  gpu: GPU,
  adapter: GPUAdapter,
  settings: WebgpuSettings,
): Promise<GpuDevice> {
  const features = featuresOf(gpu, adapter, settings);
  const wanted: [string, boolean][] = [
    ["shader-f16", features.f16],
    ["subgroups", features.subgroups],
    [MATRIX_FEATURE, features.matrices.length > 0],
    ["timestamp-query", features.timestamps && settings.profile],
  ];
  const requiredLimits: Record<string, number> = {};
  for (const name of LIMITS) {
    const value = adapter.limits[name];
    if (value !== undefined) requiredLimits[name] = value;
  }
  try {
    const device = await adapter.requestDevice({
      requiredFeatures: wanted.filter(([, use]) => use).map(([name]) => name as GPUFeatureName),
      requiredLimits,
    });
    return new GpuDevice(device, features, settings);
  } catch (cause) {
    throw new DeviceError(
      `webgpu: the adapter "${adapter.info.description}" gave no device: ${String(cause)}`,
      {
        cause,
      },
    );
  }
}

/** A device with its first failure. */
export class GpuDevice {
  readonly device: GPUDevice;
  readonly queue: GPUQueue;
  readonly features: GpuFeatures;
  readonly limits: GpuLimits;
  /** Whether commands are validated: errors are then looked for batch by batch. */
  readonly checks: boolean;
  #failure: DeviceError | undefined;
  #closed = false;
  /** Error scopes that have not answered yet. */
  readonly #scopes: Set<Promise<void>> = new Set();

  constructor(device: GPUDevice, features: GpuFeatures, settings: WebgpuSettings) {
    this.device = device;
    this.queue = device.queue;
    this.features = features;
    this.checks = settings.checks || settings.provider === "runtime";
    const { limits } = device;
    this.limits = {
      maxBufferBytes: Math.floor(limits.maxBufferSize / 16) * 16,
      // Kernels count bytes in 32 bits.
      maxBindingBytes:
        Math.floor(
          Math.min(limits.maxStorageBufferBindingSize, settings.bindingLimit, 2 ** 32 - 2 ** 12) / 256,
        ) * 256,
      bindingAlignment: Math.max(16, limits.minStorageBufferOffsetAlignment),
      workgroupBytes: limits.maxComputeWorkgroupStorageSize,
      workgroupInvocations: limits.maxComputeInvocationsPerWorkgroup,
      storageBuffers: limits.maxStorageBuffersPerShaderStage,
    };
    device.addEventListener("uncapturederror", (event) => {
      // It is reported by the next call, not on the console.
      event.preventDefault();
      this.fail(`webgpu: the device reported an error: ${event.error.message}`);
    });
    void device.lost.then(({ reason, message }) => {
      if (!this.#closed) this.fail(`webgpu: the device is lost (${reason}): ${message || "no reason given"}`);
    });
  }

  /** Keeps the first failure. */
  fail(message: string, cause?: unknown): void {
    this.#failure ??= new DeviceError(message, cause === undefined ? undefined : { cause });
  }

  /** @throws DeviceError when something failed before. */
  check(): void {
    if (this.#failure !== undefined) throw new DeviceError(this.#failure.message, { cause: this.#failure });
  }

  /** Begins to catch errors of a kind; `endScope` says what they mean. */
  beginScope(filter: GPUErrorFilter): void {
    this.device.pushErrorScope(filter);
  }

  /** Ends the innermost scope. An error in it fails the device with `what`. */
  endScope(what: string): void {
    const scope = this.device.popErrorScope().then(
      (error) => {
        if (error !== null) this.fail(`webgpu: ${what}: ${error.message}`);
      },
      (cause) => {
        if (!this.#closed) this.fail(`webgpu: ${what}: ${String(cause)}`, cause);
      },
    );
    this.#scopes.add(scope);
    void scope.then(() => this.#scopes.delete(scope));
  }

  /** Waits for what error scopes have to say. @throws DeviceError when something failed. */
  async settle(): Promise<void> {
    await Promise.all(this.#scopes);
    this.check();
  }

  /**
   * The result of a wait on the device.
   *
   * @throws DeviceError when the device failed meanwhile, or the wait did.
   */
  async waitFor<T>(waiting: Promise<T>, what: string): Promise<T> {
    try {
      const result = await waiting;
      await this.settle();
      return result;
    } catch (cause) {
      this.fail(`webgpu: ${what} failed: ${String(cause)}`, cause);
      // The reason of a loss is better than "the map was aborted", and arrives a moment later.
      await Promise.all(this.#scopes);
      this.check();
      throw cause;
    }
  }

  /** Destroys the device; its loss is not an error then. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#scopes);
    this.device.destroy();
    await this.device.lost;
  }
}

/**
 * A device by a third party: computes as the CPU does, counts the floating point operations of products and attention, and
 * says at the end of a run how many they were.
 *
 *     fsdp train ... --plugin ./counting-backend.ts --backend counting
 */
import {
  BACKEND,
  type Backend,
  type BackendOptions,
  type Kernels,
  type Plugin,
  type Registry,
} from "../../../mod.ts";

/** Operations so far, by kernel. */
type Counts = Record<string, number>;

/** Operations of one call; kernels that are not here count nothing. */
const OPERATIONS: { readonly [K in keyof Kernels]?: (...args: Parameters<Kernels[K]>) => number } = {
  matmul: ({ batch, m, n, k }) => 2 * batch * m * n * k,
  attention: ({ shape }) => 2 * 2 * scores(shape),
  // Scores once more, and the gradients of all four operands.
  attentionBackward: ({ shape }) => 5 * 2 * scores(shape),
};

function scores(shape: {
  batch: number;
  heads: number;
  queryLength: number;
  keyLength: number;
  headDim: number;
}) {
  const { batch, heads, queryLength, keyLength, headDim } = shape;
  return batch * heads * queryLength * keyLength * headDim;
}

/** `target` with some members replaced. Its own methods keep `this`. */
function wrap<T extends object>(target: T, replace: (key: keyof T, value: unknown) => unknown): T {
  return new Proxy(target, {
    get(_, key) {
      const value: unknown = Reflect.get(target, key, target);
      return replace(key as keyof T, typeof value === "function" ? value.bind(target) : value);
    },
  });
}

function countingKernels(kernels: Kernels, counts: Counts): Kernels {
  return wrap(kernels, (key, kernel) => {
    const operations = OPERATIONS[key] as ((...args: unknown[]) => number) | undefined;
    if (operations === undefined) return kernel;
    return (...args: unknown[]) => {
      counts[key] = (counts[key] ?? 0) + operations(...args);
      (kernel as (...args: unknown[]) => void)(...args);
    };
  });
}

async function create(registry: Registry, options: BackendOptions): Promise<Backend> {
  const { report, ...settings } = options.settings ?? {};
  const cpu = await registry.get(BACKEND, "cpu").create({ ...options, settings });
  const counts: Counts = {};
  const kernels = countingKernels(cpu.kernels, counts);
  return wrap(cpu, (key, value) => {
    if (key === "name") return "counting";
    if (key === "description") return `counting on ${cpu.description}`;
    if (key === "kernels") return kernels;
    if (key !== "dispose") return value;
    return async () => {
      if (report !== "off") console.log(`rank ${options.rank ?? 0} computed ${JSON.stringify(counts)}`);
      await cpu.dispose();
    };
  });
}

const plugin: Plugin = {
  name: "counting-backend",
  contract: 1,
  setup(registry) {
    registry.register(BACKEND, "counting", {
      create: (options) => create(registry, options),
      probe: () => registry.get(BACKEND, "cpu").probe(),
    });
  },
};

export default plugin;

/**
 * Matrix product without workgroup memory or barriers: a thread computes four by four elements from global memory. It is
 * the plain twin of the tiled kernels, and the faster one where workgroups are simulated (adapters that are a CPU). Strides
 * in both directions are parameters, so one kernel serves every layout and little is compiled.
 *
 * @module
 */
import type { FloatType } from "../spans.ts";
import { epilogue, type Finish, finishName, finishOperands } from "./matmul-common.ts";
import type { KernelSource } from "./source.ts";

/** Threads of a workgroup, and rows and columns of a thread. */
export const PLAIN_THREADS = 64;
/** Rows and columns of a workgroup's tile. */
export const PLAIN_TILE = 4;

const range = [0, 1, 2, 3] as const;

/** The kernel for an element type of operands and for what becomes of sums, one by one. */
export function matmulPlain(element: FloatType, finish: Omit<Finish, "outVector">): KernelSource {
  const scalars: Finish = { ...finish, outVector: false };
  return {
    name: `matmul plain ${element} ${finish.out}${finishName(scalars)}`,
    operands: [{ name: "a", type: element }, { name: "b", type: element }, ...finishOperands(scalars)],
    params: {
      m: "u32",
      n: "u32",
      k: "u32",
      batches: "u32",
      aRow: "u32",
      aDeep: "u32",
      aBatch: "u32",
      bDeep: "u32",
      bColumn: "u32",
      bBatch: "u32",
      outRow: "u32",
      outBatch: "u32",
      alpha: "f32",
    },
    workgroup: PLAIN_THREADS,
    main: `
  let across = (p.n + 3u) / 4u;
  let down = (p.m + 3u) / 4u;
  let index = group * ${PLAIN_THREADS}u + t;
  let batch = index / (across * down);
  if (batch >= p.batches) { return; }
  let row = (index / across) % down * 4u;
  let column = index % across * 4u;
  ${range.map((i) => `var x${i} = p.a_at + batch * p.aBatch + min(row + ${i}u, p.m - 1u) * p.aRow; var c${i} = vec4<f32>();`).join(" ")}
  ${range.map((j) => `var y${j} = p.b_at + batch * p.bBatch + min(column + ${j}u, p.n - 1u) * p.bColumn;`).join(" ")}
  for (var k = 0u; k < p.k; k++) {
    let right = vec4<f32>(${range.map((j) => `f32($b[y${j}])`).join(", ")});
    ${range.map((i) => `c${i} = fma(vec4<f32>(f32($a[x${i}])), right, c${i}); x${i} += p.aDeep;`).join(" ")}
    ${range.map((j) => `y${j} += p.bDeep;`).join(" ")}
  }
  ${range.map((i) => `if (row + ${i}u < p.m) { emit(row + ${i}u, column, batch * p.outBatch, c${i}); }`).join(" ")}`,
    declarations: epilogue(scalars),
  };
}

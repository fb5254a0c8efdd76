/**
 * Gated units in WebAssembly SIMD for float32; whatever else comes goes to the plain twin.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels, UnaryOp } from "../../../core/contracts/kernels.ts";
import { type Heap, requireSame } from "../kernels/heap.ts";
import type { WasmKernels } from "../wasm/load.ts";
import { isFloat32 } from "./elementwise.ts";

/** Numbers that the module gives to the activations it has: see wasm/assembly/functions.ts. */
const GATES: Readonly<Partial<Record<UnaryOp, number>>> = { silu: 3, geluTanh: 4 };

/** The fast gated units. */
export function fastGated(
  plain: Kernels,
  heap: Heap,
  wasm: WasmKernels,
): Pick<Kernels, "gated" | "gatedBackward"> {
  const address = (span: Span | undefined): number => (span === undefined ? 0 : heap.address(span));
  return {
    gated(op, gate, x, out) {
      const code = GATES[op];
      if (code === undefined || !isFloat32(gate, x, out)) return plain.gated(op, gate, x, out);
      requireSame(`gated ${op}`, [gate, x, out]);
      wasm.gated(code, heap.address(gate), heap.address(x), heap.address(out), out.length);
    },
    gatedBackward(args) {
      const { op, gate, x, gradient, dGate, dX } = args;
      const code = GATES[op];
      const spans = [gate, x, gradient, dGate ?? x, dX ?? x];
      if (code === undefined || !isFloat32(...spans)) return plain.gatedBackward(args);
      requireSame(`gated ${op} backward`, spans);
      const [pg, px, pd] = [heap.address(gate), heap.address(x), heap.address(gradient)];
      wasm.gatedBackward(code, pg, px, pd, address(dGate), address(dX), x.length);
    },
  };
}

/**
 * Conformance of gated units.
 *
 * @module
 */
import { test } from "bun:test";
import type { UnaryOp } from "../../../core/contracts/kernels.ts";
import { cases, type Suite } from "./harness.ts";

/** Activations of gates, and their derivatives. */
const GATES: Partial<Record<UnaryOp, readonly [(x: number) => number, (x: number) => number]>> = {
  silu: [
    (x) => x / (1 + Math.exp(-x)),
    (x) => (1 + Math.exp(-x) + x * Math.exp(-x)) / (1 + Math.exp(-x)) ** 2,
  ],
  relu: [(x) => Math.max(x, 0), (x) => (x > 0 ? 1 : 0)],
  geluTanh: [
    (x) => 0.5 * x * (1 + Math.tanh(inner(x))),
    (x) => 0.5 * (1 + Math.tanh(inner(x))) + (0.5 * x * slope(x)) / Math.cosh(inner(x)) ** 2,
  ],
};

const inner = (x: number): number => Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
const slope = (x: number): number => Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x ** 2);

const SIZES = [0, 1, 2, 3, 4, 5, 17, 1000, 4099];

export function gatedConformance(suite: Suite): void {
  for (const [name, [f, derivative]] of Object.entries(GATES)) {
    const op = name as UnaryOp;
    test(`gated ${op} and its gradients equal the oracle, each left out and in place too`, () =>
      cases(suite, SIZES.length, async (test, dtype, index) => {
        const length = SIZES[index]!;
        const gates = test.numbers(dtype, length, -6, 6);
        const values = test.numbers(dtype, length);
        const gradients = test.numbers(dtype, length);
        const [gate, x, gradient] = [gates, values, gradients].map((of) => test.put(dtype, of)) as [
          ReturnType<typeof test.put>,
          ReturnType<typeof test.put>,
          ReturnType<typeof test.put>,
        ];
        const { kernels } = test.backend;
        const out = test.out(dtype, length);
        const y = gates.map((g, i) => f(g) * values[i]!);
        const scale = gates.map(() => 18);
        kernels.gated(op, gate, x, out);
        await test.expectClose(out, y, `gated ${op}`, { scale });
        const wantGate = gates.map((g, i) => gradients[i]! * values[i]! * derivative(g));
        const wantX = gates.map((g, i) => gradients[i]! * f(g));
        const [dGate, dX] = [test.out(dtype, length), test.out(dtype, length)];
        if (index % 3 !== 0) kernels.gatedBackward({ op, gate, x, gradient, dGate });
        if (index % 3 !== 1) kernels.gatedBackward({ op, gate, x, gradient, dX });
        if (index % 3 === 0) kernels.gatedBackward({ op, gate, x, gradient, dGate, dX });
        if (index % 3 === 1) kernels.gatedBackward({ op, gate, x, gradient, dX });
        await test.expectClose(dGate, wantGate, `gated ${op} dGate`, { scale });
        await test.expectClose(dX, wantX, `gated ${op} dX`, { scale });
        kernels.gatedBackward({ op, gate, x, gradient, dGate: gate, dX: gradient });
        await test.expectClose(gate, wantGate, `gated ${op} dGate in place`, { scale });
        await test.expectClose(gradient, wantX, `gated ${op} dX in place`, { scale });
        const again = test.put(dtype, gates);
        kernels.gated(op, again, x, x);
        await test.expectClose(x, y, `gated ${op} in place`, { scale });
      }));
  }
}

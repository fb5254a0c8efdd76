/**
 * Elementwise kernels and optimizers in 16-bit floats.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { requireSame } from "../kernels/heap.ts";
import { anyHalf, type HalfContext } from "./context.ts";
import { inTiles, read, update, write } from "./tiles.ts";

type ElementwiseKernels = Pick<
  Kernels,
  "unary" | "unaryBackward" | "affine" | "gated" | "gatedBackward" | "dropout" | "adamw" | "sgd"
>;

/** The kernels; what has no 16-bit operand goes to the float32 ones. */
export function halfElementwise(context: HalfContext): ElementwiseKernels {
  const { float32 } = context;
  return {
    unary(op, x, out) {
      if (!anyHalf(x, out)) return float32.unary(op, x, out);
      requireSame(op, [x, out]);
      inTiles(context, op, out.length, [read(x), write(out)], ([a, b]) => float32.unary(op, a!, b!));
    },
    unaryBackward(op, x, y, gradient, out) {
      if (!anyHalf(x, y, gradient, out)) return float32.unaryBackward(op, x, y, gradient, out);
      const kernel = `${op} backward`;
      requireSame(kernel, [x, y, gradient, out]);
      inTiles(context, kernel, out.length, [read(x), read(y), read(gradient), write(out)], ([a, b, g, o]) =>
        float32.unaryBackward(op, a!, b!, g!, o!),
      );
    },
    affine(x, out, scale, shift) {
      if (!anyHalf(x, out)) return float32.affine(x, out, scale, shift);
      requireSame("affine", [x, out]);
      inTiles(context, "affine", out.length, [read(x), write(out)], ([a, b]) =>
        float32.affine(a!, b!, scale, shift),
      );
    },
    gated(op, gate, x, out) {
      if (!anyHalf(gate, x, out)) return float32.gated(op, gate, x, out);
      const kernel = `gated ${op}`;
      requireSame(kernel, [gate, x, out]);
      inTiles(context, kernel, out.length, [read(gate), read(x), write(out)], ([a, b, o]) =>
        float32.gated(op, a!, b!, o!),
      );
    },
    gatedBackward(args) {
      const { op, gate, x, gradient, dGate, dX } = args;
      if (!anyHalf(gate, x, gradient, dGate, dX)) return float32.gatedBackward(args);
      const kernel = `gated ${op} backward`;
      requireSame(kernel, given(gate, x, gradient, dGate, dX));
      const operands = [read(gate), read(x), read(gradient), write(dGate), write(dX)];
      inTiles(context, kernel, gate.length, operands, ([a, b, g, da, db]) =>
        float32.gatedBackward({ op, gate: a!, x: b!, gradient: g!, dGate: da, dX: db }),
      );
    },
    dropout(x, out, p, key) {
      if (!anyHalf(x, out)) return float32.dropout(x, out, p, key);
      requireSame("dropout", [x, out]);
      inTiles(context, "dropout", out.length, [read(x), write(out)], ([a, b], first) =>
        float32.dropout(a!, b!, p, key, first),
      );
    },
    adamw(args) {
      const { parameter, gradient, expAvg, expAvgSq, ...rates } = args;
      if (!anyHalf(parameter, gradient, expAvg, expAvgSq)) return float32.adamw(args);
      requireSame("adamw", [parameter, gradient, expAvg, expAvgSq]);
      const operands = [update(parameter), read(gradient), update(expAvg), update(expAvgSq)];
      inTiles(context, "adamw", parameter.length, operands, ([w, g, m, v]) =>
        float32.adamw({ ...rates, parameter: w!, gradient: g!, expAvg: m!, expAvgSq: v! }),
      );
    },
    sgd(args) {
      const { parameter, gradient, momentumBuffer, ...rates } = args;
      if (!anyHalf(parameter, gradient, momentumBuffer)) return float32.sgd(args);
      requireSame("sgd", given(parameter, gradient, momentumBuffer));
      const operands = [update(parameter), read(gradient), update(momentumBuffer)];
      inTiles(context, "sgd", parameter.length, operands, ([w, g, velocity]) =>
        float32.sgd({
          ...rates,
          parameter: w!,
          gradient: g!,
          ...(velocity === undefined ? {} : { momentumBuffer: velocity }),
        }),
      );
    },
  };
}

function given(...spans: readonly (Span | undefined)[]): Span[] {
  return spans.filter((span) => span !== undefined);
}

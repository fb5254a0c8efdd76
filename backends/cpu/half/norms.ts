/**
 * Normalisations over rows of 16-bit floats. Statistics are float32, and so are the sums of weight gradients over all
 * rows, which are rounded once.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { anyHalf, commonHalf, type HalfContext, requireDType } from "./context.ts";
import { inTiles, read, readWhole, spare, write, writeWhole } from "./tiles.ts";

type NormKernels = Pick<Kernels, "layerNorm" | "layerNormBackward" | "rmsNorm" | "rmsNormBackward">;

/** The kernels; what has no 16-bit operand goes to the float32 ones. */
export function halfNorms(context: HalfContext): NormKernels {
  const { float32 } = context;

  /** Adds what a tile gave to a weight gradient to what those before it did. */
  const add = (total: Span | undefined, term: Span | undefined): void => {
    if (total === undefined || term === undefined) return;
    float32.binary("add", { span: total, strides: [1] }, { span: term, strides: [1] }, total, [total.length]);
  };

  return {
    layerNorm(args) {
      const { x, weight, bias, out, mean, rstd, rows, columns, eps } = args;
      if (!anyHalf(x, weight, bias, out, mean, rstd)) return float32.layerNorm(args);
      check("layerNorm", [x, weight, bias, out], [mean, rstd]);
      const operands = [
        ...[read(x, columns), readWhole(weight, columns), readWhole(bias, columns), write(out, columns)],
        ...[write(mean), write(rstd)],
      ];
      inTiles(context, "layerNorm", rows, operands, ([a, w, b, y, m, r], _, count) =>
        float32.layerNorm({
          ...{ x: a!, weight: w!, bias: b, out: y!, mean: m!, rstd: r!, rows: count, columns, eps },
        }),
      );
    },
    layerNormBackward(args) {
      const { x, weight, mean, rstd, gradient, dx, dWeight, dBias, rows, columns } = args;
      if (!anyHalf(x, weight, mean, rstd, gradient, dx, dWeight, dBias))
        return float32.layerNormBackward(args);
      check("layerNorm backward", [x, weight, gradient, dx, dWeight, dBias], [mean, rstd]);
      const operands = [
        ...[read(x, columns), readWhole(weight, columns), read(mean), read(rstd), read(gradient, columns)],
        ...[write(dx, columns), writeWhole(dWeight, columns), writeWhole(dBias, columns)],
        ...[spare(dWeight, columns), spare(dBias, columns)],
      ];
      inTiles(context, "layerNorm backward", rows, operands, (parts, first, count) => {
        const [a, w, m, r, g, da, dw, db, dwTerm, dbTerm] = parts;
        const later = first > 0;
        float32.layerNormBackward({
          ...{ x: a!, weight: w!, mean: m!, rstd: r!, gradient: g!, dx: da, rows: count, columns },
          dWeight: later ? dwTerm : dw,
          dBias: later ? dbTerm : db,
        });
        if (!later) return;
        add(dw, dwTerm);
        add(db, dbTerm);
      });
    },
    rmsNorm(args) {
      const { x, weight, out, rstd, rows, columns, eps } = args;
      if (!anyHalf(x, weight, out, rstd)) return float32.rmsNorm(args);
      check("rmsNorm", [x, weight, out], [rstd]);
      const operands = [read(x, columns), readWhole(weight, columns), write(out, columns), write(rstd)];
      inTiles(context, "rmsNorm", rows, operands, ([a, w, y, r], _, count) =>
        float32.rmsNorm({ x: a!, weight: w!, out: y!, rstd: r!, rows: count, columns, eps }),
      );
    },
    rmsNormBackward(args) {
      const { x, weight, rstd, gradient, dx, dWeight, rows, columns } = args;
      if (!anyHalf(x, weight, rstd, gradient, dx, dWeight)) return float32.rmsNormBackward(args);
      check("rmsNorm backward", [x, weight, gradient, dx, dWeight], [rstd]);
      const operands = [
        ...[read(x, columns), readWhole(weight, columns), read(rstd), read(gradient, columns)],
        ...[write(dx, columns), writeWhole(dWeight, columns), spare(dWeight, columns)],
      ];
      inTiles(context, "rmsNorm backward", rows, operands, ([a, w, r, g, da, dw, dwTerm], first, count) => {
        const given = { x: a!, weight: w!, rstd: r!, gradient: g!, dx: da, rows: count, columns };
        float32.rmsNormBackward({ ...given, dWeight: first > 0 ? dwTerm : dw });
        if (first > 0) add(dw, dwTerm);
      });
    },
  };
}

function check(kernel: string, spans: readonly (Span | undefined)[], statistics: readonly Span[]): void {
  const given = spans.filter((span) => span !== undefined);
  requireDType(kernel, commonHalf(kernel, given), given);
  requireDType(kernel, "float32", statistics);
}

/**
 * Runs map kernels: picks the wide variant where spans allow it, and goes piecewise over spans larger than a binding.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Gpu } from "../dispatch.ts";
import { congruent, inPieces, leadOf, part } from "../spans.ts";
import { MAP_WORKGROUP } from "../wgsl/map.ts";
import type { KernelSource } from "../wgsl/source.ts";

/** Runs the kernel that `source` gives over the elements of all spans, which have one length. */
export function runMap(
  gpu: Gpu,
  source: (wide: boolean) => KernelSource,
  spans: readonly Span[],
  params: Readonly<Record<string, number>> = {},
): void {
  const wide = congruent(spans);
  const lead = wide ? leadOf(spans[0]!) : 0;
  const kernel = source(wide);
  inPieces(gpu, spans, spans[0]!.length, (start, length) => {
    const pieces =
      start === 0 && length === spans[0]!.length ? spans : spans.map((s) => part(s, start, length));
    const units = wide ? Math.ceil((lead + length) / 4) : length;
    gpu.dispatch(kernel, pieces, { ...params, n: length, lead }, Math.ceil(units / MAP_WORKGROUP));
  });
}

/**
 * What the ZeRO paper says a rank needs for a model's state (Rajbhandari et al., "ZeRO: Memory Optimizations Toward
 * Training Trillion Parameter Models", 2020, figure 1): the yardstick beside what is counted.
 *
 * @module
 */

/** 0: nothing is cut; 1: optimizer state; 2: gradients too; 3: parameters too. */
export type ZeroStage = 0 | 1 | 2 | 3;

/** Bytes of a 16-bit parameter, of its gradient, and of float32 parameter, mean and variance in Adam. */
const PARAMETER = 2;
const GRADIENT = 2;
const OPTIMIZER = 12;

/** Bytes a rank for a model of `parameters` elements, trained with Adam in mixed precision. */
export function zeroBytes(stage: ZeroStage, parameters: number, ranks: number): number {
  const cut = (bytes: number, from: ZeroStage): number => (stage >= from ? bytes / ranks : bytes);
  return parameters * (cut(PARAMETER, 3) + cut(GRADIENT, 2) + cut(OPTIMIZER, 1));
}

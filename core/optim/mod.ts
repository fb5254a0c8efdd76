/**
 * Optimizers and learning rate schedules: what users import as `optim`.
 *
 * @module
 */
export { AdamW, type AdamWValues } from "./adamw.ts";
export { GradScaler, type GradScalerOptions } from "./grad-scaler.ts";
export {
  type GroupValues,
  Optimizer,
  type OptimizerParams,
  type ParameterGroup,
  type ParameterState,
  type ZeroGradOptions,
} from "./optimizer.ts";
export {
  LRScheduler,
  type Schedule,
  type WarmupDecayOptions,
  type WarmupOptions,
  warmupConstant,
  warmupCosine,
  warmupLinear,
} from "./schedule.ts";
export { SGD, type SGDValues } from "./sgd.ts";

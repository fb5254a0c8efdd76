/**
 * Low-rank adaptation of frozen models: functions for scripts.
 *
 * @module
 */
export { addLora, type LoraOptions, loraParameters } from "./lora.ts";

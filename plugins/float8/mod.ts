/**
 * Training that communicates parameters as 8-bit floats: functions for scripts, and FSDP2 with them as a version that
 * config picks.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import type { Plugin } from "../../core/contracts/plugin.ts";
import { SHARDING } from "../../core/runtime/sharding-version.ts";
import type { Float8Recipe } from "./all-gather.ts";
import { convertToFloat8Training, RECIPES } from "./convert.ts";
import { precomputeFloat8DynamicScaleForFsdp } from "./precompute-scale.ts";

export type { Float8Recipe } from "./all-gather.ts";
export { convertToFloat8Training, type Float8TrainingOptions } from "./convert.ts";
export { precomputeFloat8DynamicScaleForFsdp } from "./precompute-scale.ts";

const RECIPE = "float8-recipe";
const FILTER = "float8-filter-fqns";

/** Registers FSDP version `"fsdp2-float8"`: version `"fsdp2"` with converted layers, and scales agreed on before each forward. */
export const float8Plugin: Plugin = Object.freeze({
  name: "float8",
  setup(registry) {
    registry.register(SHARDING, "fsdp2-float8", {
      options: {
        [RECIPE]: {
          type: "string",
          choices: RECIPES,
          default: "tensorwise",
          description: "a scale for each matrix, or for each of its rows",
        },
        [FILTER]: {
          type: "string",
          description: "linear layers to leave as they are: parts of their names, separated by commas",
          placeholder: "PARTS",
        },
      },
      shard(model, { settings = {}, ...options }) {
        const { [RECIPE]: recipe, [FILTER]: filter, ...others } = settings;
        const parts = typeof filter === "string" ? filter.split(",").map((part) => part.trim()) : [];
        if (parts.includes("")) {
          throw new ConfigError(
            `Sharding with fsdp2-float8 failed: ${FILTER} ${JSON.stringify(filter)}, allowed are parts of names, separated by commas`,
          );
        }
        convertToFloat8Training(model, {
          recipe: recipe as Float8Recipe | undefined,
          moduleFilterFn: (_, name) => !parts.some((part) => name.includes(part)),
        });
        registry.get(SHARDING, "fsdp2").shard(model, { ...options, settings: others });
        model.wrapCall(async (args, next) => {
          await precomputeFloat8DynamicScaleForFsdp(model);
          return await next(args);
        });
      },
    });
  },
} satisfies Plugin);

/**
 * Keys of a whole optimizer state: names of parameters, as sharded models have them, or their positions, as the
 * optimizer of a model that is not sharded counts them. Follows `FSDP.rekey_optim_state_dict`.
 *
 * @module
 */
import { CheckpointError } from "../../core/contracts/errors.ts";
import type { FullOptimizerStateDict } from "../../core/engine/optimizer-state-dict.ts";
import type { AnyModule } from "../../core/nn/module.ts";

/** A whole optimizer state by position: in decimal as keys, as numbers in groups. */
export interface OptimStateById {
  readonly state: FullOptimizerStateDict["state"];
  readonly paramGroups: readonly {
    readonly values: FullOptimizerStateDict["paramGroups"][number]["values"];
    readonly params: readonly number[];
  }[];
}

/**
 * The same state under other keys.
 *
 * @param keys `"PARAM_NAME"` for a dict by position, `"PARAM_ID"` for one by name.
 * @param model a model, not sharded, whose parameters have these names, in the order of these positions.
 * @throws CheckpointError for a key that the model has not.
 */
export function rekeyOptimStateDict(
  dict: OptimStateById,
  keys: "PARAM_NAME",
  model: AnyModule,
): FullOptimizerStateDict;
export function rekeyOptimStateDict(
  dict: FullOptimizerStateDict,
  keys: "PARAM_ID",
  model: AnyModule,
): OptimStateById;
export function rekeyOptimStateDict(
  dict: FullOptimizerStateDict | OptimStateById,
  keys: "PARAM_NAME" | "PARAM_ID",
  model: AnyModule,
): FullOptimizerStateDict | OptimStateById {
  const names = [...model.namedParameters()].map(([name]) => name);
  const pairs = names.map((name, id) =>
    keys === "PARAM_NAME" ? ([String(id), name] as const) : ([name, id] as const),
  );
  const map = new Map<string, string | number>(pairs);
  const rekeyed = (key: string | number): string | number => {
    const found = map.get(String(key));
    if (found !== undefined) return found;
    throw new CheckpointError(
      `Rekeying optimizer state failed: the model has no parameter ${JSON.stringify(key)}, it has ${names.length}`,
    );
  };
  return {
    state: Object.fromEntries(Object.entries(dict.state).map(([key, state]) => [rekeyed(key), state])),
    paramGroups: dict.paramGroups.map(({ values, params }) => ({ values, params: params.map(rekeyed) })),
  } as FullOptimizerStateDict | OptimStateById;
}

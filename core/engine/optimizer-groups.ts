/**
 * An optimizer's groups by the model's names, as state dicts have them, whatever the optimizer holds in place of the
 * model's parameters.
 *
 * @module
 */
import type { Value } from "../contracts/checkpointer.ts";
import { CheckpointError } from "../contracts/errors.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import type { StateParameter } from "./state-parameters.ts";

/** Groups in the optimizer's order. */
export type NamedGroups = readonly {
  readonly values: Readonly<Record<string, Value>>;
  readonly params: readonly string[];
}[];

/** @param parameters the model's. */
export function groupsByName(optimizer: Optimizer, parameters: readonly StateParameter[]): NamedGroups {
  const names = new Map<Parameter, string[]>();
  for (const { name, owner } of parameters) names.set(owner, [...(names.get(owner) ?? []), name]);
  const values = optimizer.groupValues();
  return optimizer.groups.map(({ params }, i) => ({
    values: values[i]!,
    params: params.flatMap((parameter) => names.get(parameter) ?? []),
  }));
}

/**
 * For each group the values of the saved one that has its parameters.
 *
 * @throws CheckpointError when there is none that has all of them.
 */
export function savedValues(
  groups: NamedGroups,
  saved: NamedGroups,
): readonly NamedGroups[number]["values"][] {
  return groups.map(({ params }, i) => {
    const [first] = params;
    const group = saved.find((each) => first !== undefined && each.params.includes(first));
    const outside = params.find((name) => group?.params.includes(name) !== true);
    if (group !== undefined && outside === undefined) return group.values;
    throw new CheckpointError(
      `Loading an optimizer's state failed: group ${i} has "${outside ?? first}", and no saved group has all of its parameters`,
    );
  });
}

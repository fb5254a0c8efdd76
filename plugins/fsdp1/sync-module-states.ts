/**
 * syncModuleStates: every rank starts from the first rank's values, as `_sync_module_params_and_buffers` of
 * torch/distributed/fsdp.
 *
 * @module
 */
import { broadcastFromFirst, type RankGroups } from "../../core/engine/rank-groups.ts";
import { materializeFromRank0 } from "../../core/engine/rank0-loading.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import { Parameter } from "../../core/nn/parameter.ts";
import type { Device } from "../../core/tensor/device.ts";
import { Tensor } from "../../core/tensor/tensor.ts";
import { FLAT_NAME } from "./flat-parameter.ts";
import { unitsIn, type Wrapped } from "./wrapped.ts";

/** Gives the tensors of a model that has values already, before it is sharded, the first rank's. Collective. */
export async function syncValues(
  module: AnyModule,
  ignored: ReadonlySet<Parameter>,
  groups: RankGroups,
): Promise<void> {
  const tensors = [...module.modules()].flatMap((inner) =>
    Object.values(inner).flatMap((value: unknown) => (value instanceof Tensor ? [value] : [])),
  );
  for (const tensor of new Set([...module.parameters(), ...tensors])) {
    if (!tensor.owned || (tensor instanceof Parameter && ignored.has(tensor))) continue;
    const data = await tensor.data();
    await broadcastFromFirst(groups, data);
    tensor.device.backend.write(tensor.span, data);
  }
}

/**
 * Puts a sharded model without values on a device: the first rank makes (or reads) them, each other rank is sent its
 * part. No rank holds more than one box of one parameter beside what is its own. Collective.
 */
export async function materializeFromFirst(root: Wrapped, device: Device): Promise<void> {
  for (const { prefix, unit } of unitsIn(root.module)) {
    const parameters = unit.parameters.map(({ parameter }) => parameter);
    const first = unit.flat ?? parameters[0]!;
    if (parameters[0]!.materialized) continue;
    // Initial values follow from names within the model.
    for (const { name, parameter } of unit.parameters) parameter.name = prefix + name;
    if (unit.flat !== undefined) unit.flat.name = prefix + FLAT_NAME;
    await materializeFromRank0(parameters, root.groups, device, () => first.materialize(device));
  }
}
